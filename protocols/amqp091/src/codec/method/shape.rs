//! What the arguments of each method are made of.

use crate::codec::reader::Reader;

/// One argument, or the octet that several bits share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Up to eight bits, or an octet.
    Octet,
    /// u16.
    Short,
    /// u32.
    Long,
    /// u64.
    LongLong,
    /// Short string that must be UTF-8.
    Text,
    /// Short string of any bytes: RabbitMQ 3.10 does not check those of the methods that carry content.
    Name,
    /// Long string.
    Bytes,
    /// Field table.
    Table,
}

use Field::{Bytes, Long, LongLong, Name, Octet, Short, Table, Text};

/// Whether RabbitMQ speaks the class.
pub(super) fn is_known_class(class: u16) -> bool {
    matches!(class, 10 | 20 | 30 | 40 | 50 | 60 | 85 | 90)
}

/// The fields of a method, `None` when there is no such method.
pub(super) fn of(class: u16, method: u16) -> Option<&'static [Field]> {
    Some(match (class, method) {
        // connection
        (10, 10) => &[Octet, Octet, Table, Bytes, Bytes],
        (10, 11) => &[Table, Text, Bytes, Text],
        (10, 20 | 21) => &[Bytes],
        (10, 30 | 31) => &[Short, Long, Short],
        (10, 40) => &[Text, Text, Octet],
        (10, 41 | 60) => &[Text],
        (10, 50) => &[Short, Text, Short, Short],
        (10, 51 | 61 | 71) => &[],
        (10, 70) => &[Bytes, Text],
        // channel
        (20, 10) => &[Text],
        (20, 11) => &[Bytes],
        (20, 20 | 21) => &[Octet],
        (20, 40) => &[Short, Text, Short, Short],
        (20, 41) => &[],
        // access
        (30, 10) => &[Text, Octet],
        (30, 11) => &[Short],
        // exchange
        (40, 10) => &[Short, Text, Text, Octet, Table],
        (40, 20) => &[Short, Text, Octet],
        (40, 30 | 40) => &[Short, Text, Text, Text, Octet, Table],
        (40, 11 | 21 | 31 | 51) => &[],
        // queue
        (50, 10) => &[Short, Text, Octet, Table],
        (50, 11) => &[Text, Long, Long],
        (50, 20) => &[Short, Text, Text, Text, Octet, Table],
        (50, 30 | 40) => &[Short, Text, Octet],
        (50, 31 | 41) => &[Long],
        (50, 50) => &[Short, Text, Text, Text, Table],
        (50, 21 | 51) => &[],
        // basic
        (60, 10) => &[Long, Short, Octet],
        (60, 20) => &[Short, Text, Text, Octet, Table],
        (60, 21 | 31 | 72) => &[Text],
        (60, 30) => &[Text, Octet],
        (60, 40) => &[Short, Name, Name, Octet],
        (60, 50) => &[Short, Name, Name, Name],
        (60, 60) => &[Name, LongLong, Octet, Name, Name],
        (60, 70) => &[Short, Text, Octet],
        (60, 71) => &[LongLong, Octet, Name, Name, Long],
        (60, 80 | 90 | 120) => &[LongLong, Octet],
        (60, 100 | 110) => &[Octet],
        (60, 11 | 111) => &[],
        // confirm
        (85, 10) => &[Octet],
        (85, 11) => &[],
        // tx
        (90, 10 | 11 | 20 | 21 | 30 | 31) => &[],
        _ => return None,
    })
}

/// What a walk over arguments of the right form found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked<'a> {
    /// Every string that must be text is.
    pub(super) is_text: bool,
    /// The bytes of the table, empty for methods without one. No method has two.
    pub(super) table: &'a [u8],
}

/// Checks that the arguments have that form, and nothing comes after them.
pub(super) fn walk<'a>(fields: &[Field], args: &'a [u8]) -> Option<Walked<'a>> {
    let mut reader = Reader(args);
    let mut walked = Walked { is_text: true, table: &[] };
    for field in fields {
        match field {
            Octet => _ = reader.take(1)?,
            Short => _ = reader.take(2)?,
            Long => _ = reader.take(4)?,
            LongLong => _ = reader.take(8)?,
            Text => walked.is_text &= std::str::from_utf8(reader.short()?).is_ok(),
            Name => _ = reader.short()?,
            Bytes => _ = reader.long()?,
            Table => walked.table = reader.long()?,
        }
    }
    reader.is_empty().then_some(walked)
}
