#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| qmqpd::fuzzing::proxy_header(data));
