//! The server's methods, appended to an output buffer as whole frames.

mod content;

pub use content::{
    BodyFrame, Content, ack, basic_return, body_frames, deliver, deliver_head, get_ok, header, nack, put_body,
    put_names,
};

use super::malformed::MAX_REPLY_TEXT;

/// The part of `text` that fits a short string, ending with a whole character where it is UTF-8.
#[inline]
fn short(text: &[u8]) -> &[u8] {
    if text.len() <= MAX_REPLY_TEXT { text } else { cut(text) }
}

#[cold]
fn cut(text: &[u8]) -> &[u8] {
    // A byte 10xxxxxx goes on with the character before it, so the cut must not come before one.
    let starts_here = |at: &usize| text.get(*at).is_none_or(|octet| octet & 0xC0 != 0x80);
    let end = (0..=MAX_REPLY_TEXT).rev().take(4).find(starts_here).unwrap_or(MAX_REPLY_TEXT);
    text.get(..end).unwrap_or_default()
}
