//! See `tftpbench_fuzz::negotiation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tftpbench_fuzz::negotiation(input));
