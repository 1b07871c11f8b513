//! The decoders of what is stored: frames, records of every kind, facts of the catalogue.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::fact::Fact;
use portolan_storage::encode::{self, Kind, Stored};
use portolan_storage::journal::frame;

fuzz_target!(|input: &[u8]| {
    let _ = frame::peek(input);
    let _ = frame::parse(input, frame::seed(1));
    for kind in (0..=u8::MAX).filter_map(Kind::from_number) {
        match encode::decode(kind, input) {
            Ok(Stored::Enqueued(stored)) => {
                let message = stored.message();
                assert!(message.body().len() <= input.len());
            }
            Ok(Stored::Fact { value: Some(value), .. }) => drop(Fact::read(value)),
            _ => {}
        }
    }
    if let Some(fact) = Fact::read(input) {
        assert!(!fact.key().is_empty());
        assert!(Fact::read(&fact.value()).is_some(), "our own");
    }
});
