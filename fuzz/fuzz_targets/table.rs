//! The table reader: what it reads, it writes back and reads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_amqp091::codec::{Limits, table};

fuzz_target!(|input: &[u8]| {
    let limits = Limits::default();
    let scanned = table::scan(input, limits).is_ok();
    let read = table::read(input, limits);
    assert_eq!(scanned, read.is_ok(), "what passes the scan can be read");
    if let Ok(read) = read {
        let mut written = Vec::new();
        table::put(&mut written, &read);
        let again = table::read(&written[4..], limits).expect("our own");
        let mut twice = Vec::new();
        table::put(&mut twice, &again);
        assert_eq!(written, twice);
    }
});
