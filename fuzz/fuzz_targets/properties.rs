//! The readers of message properties, which must agree, and their rewriter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_amqp091::codec::Limits;
use portolan_amqp091::codec::properties::{self, Edit, Edits};
use portolan_core::value::{Table, Value};

fuzz_target!(|raw: &[u8]| {
    let limits = Limits::default();
    let facts = properties::facts(raw);
    let headers = properties::headers(raw, limits);
    if properties::parse(raw, limits).is_ok() {
        assert!(facts.is_ok() && headers.is_ok(), "the strictest reader is not alone");
    }
    let table = Table(vec![("k".into(), Value::Bool(true))]);
    let edits = Edits { headers: Edit::Set(&table), expiration: Edit::Remove, reply_to: Edit::Set(b"me") };
    if let Ok(rewritten) = properties::rewrite(raw, edits) {
        let facts = properties::facts(&rewritten).expect("our own");
        assert_eq!((facts.expiration, facts.reply_to), (None, Some(&b"me"[..])));
        assert_eq!(properties::headers(&rewritten, limits), Ok(table));
    }
});
