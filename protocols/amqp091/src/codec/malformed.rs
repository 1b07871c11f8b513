//! What a peer can get wrong on the wire, with the reply code and text that RabbitMQ gives for it.

use std::fmt::{self, Write as _};

/// The octets that an error text shows: RabbitMQ shows all of up to 16, or the first 16.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snippet {
    octets: [u8; Self::SHOWN],
    len: u8,
    whole: bool,
}

impl Snippet {
    const SHOWN: usize = 16;

    /// The start of `payload`.
    pub fn new(payload: &[u8]) -> Self {
        let mut octets = [0; Self::SHOWN];
        let len = payload.len().min(Self::SHOWN);
        octets.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
        Self { octets, len: u8::try_from(len).unwrap_or_default(), whole: len == payload.len() }
    }

    fn shown(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.whole { "all" } else { "first 16" };
        write!(f, "{which} octets = {}", Binary(self.shown()))
    }
}

impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A byte string as Erlang prints it: `<<"text">>` when every byte is printable, `<<1,2>>` otherwise.
///
/// Erlang counts Latin-1 letters as printable and writes them unchanged; a reply text must be UTF-8 for the
/// clients that decode it, so such bytes count here only where they are UTF-8. Erlang also breaks lines after
/// 80 columns, which no client looks for and which log readers do not like; we do not.
struct Binary<'a>(&'a [u8]);

impl fmt::Display for Binary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |b: &u8| matches!(b, 8..=13 | 27 | 32..=126 | 160..=255);
        f.write_str("<<")?;
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.is_empty() && self.0.iter().all(printable) => write_string(f, text)?,
            _ => {
                for (index, octet) in self.0.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{octet}")?;
                }
            }
        }
        f.write_str(">>")
    }
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\x08' => f.write_str("\\b")?,
            '\t' => f.write_str("\\t")?,
            '\n' => f.write_str("\\n")?,
            '\x0b' => f.write_str("\\v")?,
            '\x0c' => f.write_str("\\f")?,
            '\r' => f.write_str("\\r")?,
            '\x1b' => f.write_str("\\e")?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

/// Bytes that no AMQP peer may send. Each of them closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The octet after the payload is not 0xCE.
    FrameEnd {
        /// Type of the frame.
        kind: u8,
        /// What stands in the place of 0xCE.
        marker: u8,
        /// Start of the payload.
        payload: Snippet,
    },
    /// The payload is longer than the negotiated frame size allows.
    FrameTooLarge {
        /// Type of the frame.
        kind: u8,
        /// Announced length.
        size: usize,
        /// Longest payload that was agreed upon.
        max: usize,
    },
    /// No such frame type, or a payload too short or too long for the type.
    UnknownFrame {
        /// Type of the frame.
        kind: u8,
        /// Start of the payload.
        payload: Snippet,
    },
    /// A frame that may not come on this channel.
    UnexpectedFrame {
        /// Type of the frame.
        kind: u8,
        /// Start of the payload.
        payload: Snippet,
    },
    /// The arguments do not have the form of the method.
    Arguments {
        /// The arguments as Erlang prints them, no longer than a reply text can hold.
        shown: Box<str>,
    },
    /// A short string that must be text is not.
    NotUtf8,
    /// A class that RabbitMQ does not know.
    UnknownClass(u16),
    /// A value in a table whose type tag is unknown.
    UnknownTag(u8),
    /// A table or array ends within a value.
    TableCut,
    /// Tables or arrays nested too deep.
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// Too many values in a table.
    TooManyValues {
        /// The limit.
        max: usize,
    },
    /// Too many bytes in a table.
    TableTooLarge {
        /// The limit.
        max: usize,
    },
    /// Properties with flags that do not exist, values cut short or bytes left over.
    Properties,
}

impl Malformed {
    /// A frame that may not come on this channel or in this state.
    #[cold]
    pub fn unexpected(kind: u8, payload: &[u8]) -> Self {
        Self::UnexpectedFrame { kind, payload: Snippet::new(payload) }
    }

    /// Arguments that do not have the form of the method.
    #[cold]
    pub(crate) fn arguments(args: &[u8]) -> Self {
        // An octet takes at least one character, so no more octets than these can be seen in a reply text.
        let end = match std::str::from_utf8(args) {
            Ok(text) => text.floor_char_boundary(MAX_REPLY_TEXT),
            Err(_) => args.len().min(MAX_REPLY_TEXT),
        };
        Self::Arguments { shown: Binary(args.get(..end).unwrap_or_default()).to_string().into() }
    }

    /// AMQP reply code.
    pub fn reply_code(&self) -> u16 {
        match self {
            Self::FrameEnd { .. }
            | Self::FrameTooLarge { .. }
            | Self::UnknownFrame { .. }
            | Self::Arguments { .. }
            | Self::NotUtf8 => 501,
            Self::UnexpectedFrame { .. } => 505,
            Self::UnknownClass(_) => 503,
            // RabbitMQ drops the connection without a word here; 0-9-1 has this code for illegal field values.
            Self::UnknownTag(_)
            | Self::TableCut
            | Self::TooDeep { .. }
            | Self::TooManyValues { .. }
            | Self::TableTooLarge { .. } => 502,
            Self::Properties => 541,
        }
    }

    /// The reply text, at most 255 bytes.
    pub fn reply_text(&self) -> String {
        let name = match self.reply_code() {
            501 => "FRAME_ERROR",
            502 => "SYNTAX_ERROR",
            503 => "COMMAND_INVALID",
            505 => "UNEXPECTED_FRAME",
            // RabbitMQ 3.10 gives no explanation with this one.
            _ => return "INTERNAL_ERROR".into(),
        };
        let text = format!("{name} - {self}");
        match shorten(&text) {
            Some(kept) => format!("{kept}..."),
            None => text,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameEnd { kind, marker, payload } => {
                write!(f, "type {kind}, {payload}: {{invalid_frame_end_marker,{marker}}}")
            }
            Self::FrameTooLarge { kind, size, max } => {
                write!(f, "type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}")
            }
            Self::UnknownFrame { kind, payload } => write!(f, "type {kind}, {payload}: unknown_frame"),
            Self::UnexpectedFrame { kind, payload } => write!(f, "type {kind}, {payload}"),
            Self::Arguments { shown } => write!(f, "cannot decode {shown}"),
            Self::NotUtf8 => f.write_str("Malformed UTF-8 in shortstr"),
            Self::UnknownClass(class) => write!(f, "unknown class {class}"),
            Self::UnknownTag(tag) => write!(f, "unknown field type {tag} in a table"),
            Self::TableCut => f.write_str("a table ends within a value"),
            Self::TooDeep { max } => write!(f, "tables nested deeper than {max} levels"),
            Self::TooManyValues { max } => write!(f, "more than {max} values in a table"),
            Self::TableTooLarge { max } => write!(f, "a table longer than {max} bytes"),
            Self::Properties => f.write_str("malformed properties"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Length of the longest short string.
pub(crate) const MAX_REPLY_TEXT: usize = 255;

/// What is kept of a text that is too long for a reply text, so that `...` fits behind it; RabbitMQ keeps 252
/// bytes, we stop at a character's end.
pub(crate) fn shorten(text: &str) -> Option<&str> {
    if text.len() <= MAX_REPLY_TEXT {
        return None;
    }
    text.get(..text.floor_char_boundary(MAX_REPLY_TEXT - 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn prints(octets: &[u8], expected: &str) {
        assert_eq!(Binary(octets).to_string(), expected);
    }

    #[test]
    fn octets_print_as_erlang_prints_them() {
        prints(b"", "<<>>");
        prints(b"abc", r#"<<"abc">>"#);
        prints(&[0, 20, 0, 10, 0], "<<0,20,0,10,0>>");
        prints(b"a\n\t\x1b\"\\\x0b\x08\x0c\r", r#"<<"a\n\t\e\"\\\v\b\f\r">>"#);
        prints(b"a\x7f", "<<97,127>>");
        prints("aé".as_bytes(), r#"<<"aé">>"#);
        prints(&[b'a', 200], "<<97,200>>");
    }

    #[test]
    fn only_the_first_sixteen_octets_are_shown() {
        assert_eq!(Snippet::new(b"abcdefghijklmnop").to_string(), r#"all octets = <<"abcdefghijklmnop">>"#);
        assert_eq!(Snippet::new(b"abcdefghijklmnopq").to_string(), r#"first 16 octets = <<"abcdefghijklmnop">>"#);
    }

    #[test]
    fn long_texts_end_in_dots_as_in_rabbitmq() {
        let text = Malformed::arguments(&b"ab".repeat(200)).reply_text();
        assert_eq!(text.len(), 255);
        assert!(text.starts_with(r#"FRAME_ERROR - cannot decode <<"abab"#) && text.ends_with("aba..."), "{text}");
        let text = Malformed::arguments("é".repeat(200).as_bytes()).reply_text();
        assert!(text.len() <= 255 && text.ends_with("é..."), "{text}");
    }
}
