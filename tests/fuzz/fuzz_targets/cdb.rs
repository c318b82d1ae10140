#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| qmqpd::fuzzing::cdb(data));
