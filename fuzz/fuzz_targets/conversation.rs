//! The whole engine, fed frames that are mostly right in an order that is mostly wrong, over three connections.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| portolan_fuzz::script::play(input));
