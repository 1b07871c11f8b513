//! The frame splitter: whatever comes, it finds a frame, waits, or says what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_amqp091::codec::frame;

fuzz_target!(|input: &[u8]| {
    for frame_max in [8, 4096, 131_072] {
        let mut rest = input;
        loop {
            match frame::split(rest, frame_max) {
                Ok(Some(found)) => {
                    assert!(found.size > found.payload.len() && found.size <= rest.len());
                    let _ = frame::content_header(found.payload);
                    let _ = found.undecodable().reply_text();
                    rest = &rest[found.size..];
                }
                Ok(None) => break,
                Err(malformed) => {
                    assert!(malformed.reply_text().len() <= 255);
                    break;
                }
            }
        }
    }
});
