//! See `tftpbench_fuzz::receiver`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tftpbench_fuzz::receiver(input));
