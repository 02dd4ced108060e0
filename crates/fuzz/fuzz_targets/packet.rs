//! See `tftpbench_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tftpbench_fuzz::packet(input));
