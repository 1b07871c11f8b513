//! Field tables in RabbitMQ's dialect, to and from [`Table`].
//!
//! Functions that take encoded tables take the bytes behind the table's length.

use std::sync::Arc;

use amq_protocol::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString};
use portolan_core::value::{Table, Value};

use super::encode::short;
use super::reader::Reader;
use super::{Limits, Malformed};

/// Walks a table and everything in it without building anything.
///
/// Whatever passes is safe for readers that recurse: `amq-protocol`'s overflows the stack on a 10 KB table
/// nested 2,000 levels deep, which a client could send before it has logged in.
pub fn scan(table: &[u8], limits: Limits) -> Result<(), Malformed> {
    if table.len() > limits.bytes {
        return Err(Malformed::TableTooLarge { max: limits.bytes });
    }
    let max_depth = limits.depth.min(Limits::DEEPEST);
    Scan { depth: 0, max_depth, entries: 0, max_entries: limits.entries }.container(table, true)
}

struct Scan {
    depth: usize,
    max_depth: usize,
    entries: usize,
    max_entries: usize,
}

impl Scan {
    fn container(&mut self, bytes: &[u8], named: bool) -> Result<(), Malformed> {
        if self.depth == self.max_depth {
            return Err(Malformed::TooDeep { max: self.max_depth });
        }
        self.depth += 1;
        let mut reader = Reader(bytes);
        while !reader.is_empty() {
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(Malformed::TooManyValues { max: self.max_entries });
            }
            if named {
                let name = reader.short().ok_or(Malformed::TableCut)?;
                // RabbitMQ 3.10 takes any bytes for a name; our tables and `amq-protocol` have names that are
                // text, and no client library sends others.
                std::str::from_utf8(name).map_err(|_| Malformed::NotUtf8)?;
            }
            self.value(&mut reader)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn value(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let tag = reader.octet().ok_or(Malformed::TableCut)?;
        let skipped = match tag {
            b'V' => Some(&[][..]),
            b't' | b'b' | b'B' => reader.take(1),
            b's' | b'u' => reader.take(2),
            b'I' | b'i' | b'f' => reader.take(4),
            b'D' => reader.take(5),
            b'l' | b'L' | b'd' | b'T' => reader.take(8),
            b'S' | b'x' => reader.long(),
            b'F' | b'A' => {
                let inner = reader.long().ok_or(Malformed::TableCut)?;
                return self.container(inner, tag == b'F');
            }
            _ => return Err(Malformed::UnknownTag(tag)),
        };
        skipped.map(|_| ()).ok_or(Malformed::TableCut)
    }
}

/// Reads a table: every value with its width, in order, duplicates included.
pub fn read(table: &[u8], limits: Limits) -> Result<Table, Malformed> {
    scan(table, limits)?;
    fields(table).ok_or(Malformed::TableCut)
}

/// Reads what [`scan`] has passed, so the depth of the recursion is bounded.
fn fields(bytes: &[u8]) -> Option<Table> {
    let mut reader = Reader(bytes);
    let mut fields = Vec::new();
    while !reader.is_empty() {
        let name: Arc<str> = std::str::from_utf8(reader.short()?).ok()?.into();
        fields.push((name, value(&mut reader)?));
    }
    Some(Table(fields))
}

fn values(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut reader = Reader(bytes);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(value(&mut reader)?);
    }
    Some(values)
}

fn value(reader: &mut Reader<'_>) -> Option<Value> {
    Some(match reader.octet()? {
        b'V' => Value::Void,
        b't' => Value::Bool(reader.octet()? != 0),
        b'b' => Value::I8(i8::from_be_bytes(reader.array()?)),
        b'B' => Value::U8(reader.octet()?),
        b's' => Value::I16(i16::from_be_bytes(reader.array()?)),
        b'u' => Value::U16(u16::from_be_bytes(reader.array()?)),
        b'I' => Value::I32(i32::from_be_bytes(reader.array()?)),
        b'i' => Value::U32(u32::from_be_bytes(reader.array()?)),
        // Both are signed in RabbitMQ's dialect.
        b'l' | b'L' => Value::I64(i64::from_be_bytes(reader.array()?)),
        b'f' => Value::F32(f32::from_be_bytes(reader.array()?)),
        b'd' => Value::F64(f64::from_be_bytes(reader.array()?)),
        b'D' => Value::Decimal { scale: reader.octet()?, value: u32::from_be_bytes(reader.array()?) },
        b'S' => Value::Text(reader.long()?.into()),
        b'x' => Value::Bytes(reader.long()?.into()),
        b'T' => Value::Timestamp(u64::from_be_bytes(reader.array()?)),
        b'F' => Value::Table(fields(reader.long()?)?),
        b'A' => Value::Array(values(reader.long()?)?),
        _ => return None,
    })
}

/// Appends a table with its length before it.
pub fn put(out: &mut Vec<u8>, table: &Table) {
    put_with_length(out, |out| {
        for (name, value) in &table.0 {
            put_field(out, name, value);
        }
    });
}

/// Appends one field of a table.
pub(crate) fn put_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    let name = short(name.as_bytes());
    out.push(u8::try_from(name.len()).unwrap_or_default());
    out.extend_from_slice(name);
    put_value(out, value);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Void => out.push(b'V'),
        Value::Bool(v) => put_number(out, b't', [u8::from(*v)]),
        Value::I8(v) => put_number(out, b'b', v.to_be_bytes()),
        Value::U8(v) => put_number(out, b'B', [*v]),
        Value::I16(v) => put_number(out, b's', v.to_be_bytes()),
        Value::U16(v) => put_number(out, b'u', v.to_be_bytes()),
        Value::I32(v) => put_number(out, b'I', v.to_be_bytes()),
        Value::U32(v) => put_number(out, b'i', v.to_be_bytes()),
        Value::I64(v) => put_number(out, b'l', v.to_be_bytes()),
        Value::F32(v) => put_number(out, b'f', v.to_be_bytes()),
        Value::F64(v) => put_number(out, b'd', v.to_be_bytes()),
        Value::Decimal { scale, value } => {
            put_number(out, b'D', [*scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Text(v) => put_bytes(out, b'S', v),
        Value::Bytes(v) => put_bytes(out, b'x', v),
        Value::Timestamp(v) => put_number(out, b'T', v.to_be_bytes()),
        Value::Table(v) => {
            out.push(b'F');
            put(out, v);
        }
        Value::Array(items) => {
            out.push(b'A');
            put_with_length(out, |out| items.iter().for_each(|item| put_value(out, item)));
        }
    }
}

fn put_number<const N: usize>(out: &mut Vec<u8>, tag: u8, octets: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&octets);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_with_length(out, |out| out.extend_from_slice(bytes));
}

fn put_with_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// The table as `amq-protocol` has it, for the methods that it writes. Order and duplicates are lost.
pub(crate) fn to_amq(table: &Table) -> FieldTable {
    let mut fields = FieldTable::default();
    for (name, value) in &table.0 {
        fields.insert(super::encode::short_string(name), value_to_amq(value));
    }
    fields
}

fn value_to_amq(value: &Value) -> AMQPValue {
    match value {
        Value::Void => AMQPValue::Void,
        Value::Bool(v) => AMQPValue::Boolean(*v),
        Value::I8(v) => AMQPValue::ShortShortInt(*v),
        Value::U8(v) => AMQPValue::ShortShortUInt(*v),
        Value::I16(v) => AMQPValue::ShortInt(*v),
        Value::U16(v) => AMQPValue::ShortUInt(*v),
        Value::I32(v) => AMQPValue::LongInt(*v),
        Value::U32(v) => AMQPValue::LongUInt(*v),
        Value::I64(v) => AMQPValue::LongLongInt(*v),
        Value::F32(v) => AMQPValue::Float(*v),
        Value::F64(v) => AMQPValue::Double(*v),
        Value::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
        Value::Text(v) => AMQPValue::LongString(LongString::from(v.to_vec())),
        Value::Bytes(v) => AMQPValue::ByteArray((&**v).into()),
        Value::Timestamp(v) => AMQPValue::Timestamp(*v),
        Value::Table(v) => AMQPValue::FieldTable(to_amq(v)),
        Value::Array(items) => {
            AMQPValue::FieldArray(FieldArray::from(items.iter().map(value_to_amq).collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use amq_protocol::types::parsing::parse_field_table;
    use proptest::prelude::*;

    use super::*;

    /// Any table that may come, not deeper than the limits.
    pub(crate) fn any_table() -> impl Strategy<Value = Table> {
        let scalar = prop_oneof![
            Just(Value::Void),
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::I8),
            any::<u8>().prop_map(Value::U8),
            any::<i16>().prop_map(Value::I16),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            any::<f32>().prop_map(Value::F32),
            any::<f64>().prop_map(Value::F64),
            (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::text),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into())),
            any::<u64>().prop_map(Value::Timestamp),
        ];
        let value = scalar.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                fields_of(inner).prop_map(Value::Table),
            ]
        });
        fields_of(value)
    }

    fn fields_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Table> {
        let name = "[a-cé]{0,3}".prop_map(Arc::<str>::from);
        prop::collection::vec((name, value), 0..5).prop_map(Table)
    }

    fn encoded(table: &Table) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, table);
        out
    }

    #[track_caller]
    fn one(bytes: &[u8], expected: Value) {
        let bytes = [b"\x01k", bytes].concat();
        let table = read(&bytes, Limits::default()).unwrap();
        assert_eq!(table, Table(vec![("k".into(), expected)]));
        assert_eq!(encoded(&table)[4..], bytes);
    }

    #[track_caller]
    fn refused(bytes: &[u8], expected: Malformed) {
        let limits = Limits { depth: 2, entries: 3, bytes: 64 };
        assert_eq!(read(bytes, limits).unwrap_err(), expected);
        assert_eq!(scan(bytes, limits).unwrap_err(), expected);
    }

    fn nested(levels: usize) -> Vec<u8> {
        (1..levels).fold(Vec::new(), |inner, _| {
            let length = u32::try_from(inner.len()).unwrap();
            [b"\x01kF", &length.to_be_bytes()[..], &inner].concat()
        })
    }

    #[test]
    fn every_type_keeps_its_width() {
        one(b"t\x01", Value::Bool(true));
        one(b"b\xff", Value::I8(-1));
        one(b"B\xff", Value::U8(255));
        one(b"s\xff\xfe", Value::I16(-2));
        one(b"u\xff\xfe", Value::U16(65_534));
        one(b"I\xff\xff\xff\xfd", Value::I32(-3));
        one(b"i\xff\xff\xff\xfd", Value::U32(4_294_967_293));
        one(b"l\xff\xff\xff\xff\xff\xff\xff\xfc", Value::I64(-4));
        one(b"f\x3f\x80\x00\x00", Value::F32(1.0));
        one(b"d\x3f\xf0\x00\x00\x00\x00\x00\x00", Value::F64(1.0));
        one(b"D\x02\x00\x00\x01\x00", Value::Decimal { scale: 2, value: 256 });
        one(b"S\x00\x00\x00\x02\xff\xfe", Value::text([0xFF, 0xFE]));
        one(b"x\x00\x00\x00\x01z", Value::Bytes((*b"z").into()));
        one(b"T\x00\x00\x00\x00\x00\x00\x00\x09", Value::Timestamp(9));
        one(b"V", Value::Void);
        one(b"A\x00\x00\x00\x03VB\x05", Value::Array(vec![Value::Void, Value::U8(5)]));
        one(b"F\x00\x00\x00\x04\x01aB\x05", Value::Table(Table(vec![("a".into(), Value::U8(5))])));
    }

    #[test]
    fn what_rabbitmq_reads_otherwise_than_it_writes() {
        let read = |bytes| read(bytes, Limits::default()).unwrap();
        assert_eq!(read(b"\x01kt\x07").get("k"), Some(&Value::Bool(true)));
        let long = read(b"\x01kL\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(long.get("k"), Some(&Value::I64(-1)));
        assert_eq!(encoded(&long)[6], b'l');
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let table = read(b"\x01zB\x01\x01aB\x02\x01zB\x03", Limits::default()).unwrap();
        let names: Vec<&str> = table.0.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["z", "a", "z"]);
    }

    #[test]
    fn refusals() {
        refused(b"\x01kU\x00\x01", Malformed::UnknownTag(b'U'));
        refused(b"\x01kn\x00", Malformed::UnknownTag(b'n'));
        refused(b"\x01k", Malformed::TableCut);
        refused(b"\x05k", Malformed::TableCut);
        refused(b"\x01kI\x00\x00\x00", Malformed::TableCut);
        refused(b"\x01kS\x00\x00\x00\x05abcd", Malformed::TableCut);
        refused(b"\x01kF\x00\x00\x00\x05\x01aB\x05", Malformed::TableCut);
        refused(b"\x01kA\xff\xff\xff\xff", Malformed::TableCut);
        refused(b"\x01\xffV", Malformed::NotUtf8);
        refused(&nested(3), Malformed::TooDeep { max: 2 });
        refused(b"\x01kA\x00\x00\x00\x02VV\x01kV", Malformed::TooManyValues { max: 3 });
        refused(&[0; 65], Malformed::TableTooLarge { max: 64 });
        assert!(read(&nested(2), Limits { depth: 2, entries: 3, bytes: 64 }).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let deep = nested(3_000);
        let limits = Limits { depth: usize::MAX, ..Limits::default() };
        assert_eq!(read(&deep, limits), Err(Malformed::TooDeep { max: Limits::DEEPEST }));
        assert!(read(&nested(Limits::DEEPEST), limits).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(table in any_table()) {
            let bytes = encoded(&table);
            prop_assert_eq!(read(&bytes[4..], Limits::default()), Ok(table));
        }

        #[test]
        fn amq_protocol_agrees(table in any_table()) {
            let bytes = encoded(&table);
            let (rest, theirs) = parse_field_table(&bytes[..]).unwrap();
            prop_assert!(rest.is_empty());
            // Debug output compares NaN with NaN.
            prop_assert_eq!(format!("{:?}", theirs), format!("{:?}", to_amq(&table)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, Limits::default());
        }

        #[test]
        fn no_damage_makes_it_panic(table in any_table(), at: prop::sample::Index, octet: u8) {
            let mut bytes = encoded(&table);
            let at = at.index(bytes.len());
            bytes[at] = octet;
            let whole = read(&bytes[4..], Limits::default()).is_ok();
            prop_assert_eq!(whole, scan(&bytes[4..], Limits::default()).is_ok());
        }
    }
}
