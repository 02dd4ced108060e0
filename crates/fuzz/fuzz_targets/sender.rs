//! See `tftpbench_fuzz::sender`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tftpbench_fuzz::sender(input));
