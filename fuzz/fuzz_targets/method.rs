//! The method decoder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_amqp091::codec::{Limits, method};

fuzz_target!(|payload: &[u8]| {
    for limits in [Limits::default(), Limits { depth: 2, entries: 4, bytes: 64 }] {
        if let Err(error) = method::decode(payload, limits) {
            assert!(error.fault.reply_text().len() <= 255);
        }
    }
});
