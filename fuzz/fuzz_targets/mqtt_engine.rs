//! MQTT's engine with several clients of one broker, fed packets that are mostly right in an order that is mostly wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| portolan_fuzz::devices::play(input));
