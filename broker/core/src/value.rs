//! The values that arguments and headers hold, whatever protocol they came by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One value of an argument or header table.
///
/// The variants keep the exact width that the peer sent, because clients cast what they read back
/// (a header sent as a `u8` must come back as one).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Present, but without a value.
    Void,
    /// True or false.
    Bool(bool),
    /// Signed 8 bits.
    I8(i8),
    /// Unsigned 8 bits.
    U8(u8),
    /// Signed 16 bits.
    I16(i16),
    /// Unsigned 16 bits.
    U16(u16),
    /// Signed 32 bits.
    I32(i32),
    /// Unsigned 32 bits.
    U32(u32),
    /// Signed 64 bits.
    I64(i64),
    /// 32-bit floating point.
    F32(f32),
    /// 64-bit floating point.
    F64(f64),
    /// A decimal number: `value / 10^scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// Text, by convention UTF-8, but not checked: clients put binary here.
    Text(Arc<[u8]>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// Seconds since the epoch.
    Timestamp(u64),
    /// A nested table.
    Table(Table),
    /// A list.
    Array(Vec<Value>),
}

impl Value {
    /// A text value.
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Text(text.as_ref().into())
    }

    /// The number, when this is an integer of any width.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(v) => Some(v.into()),
            Self::U8(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I64(v) => Some(v),
            _ => None,
        }
    }

    /// The text, when this is text in UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Equality as RabbitMQ 4 compares arguments and headers: integers by value whatever their width, text and
    /// bytes by content, everything else by type and value.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a) | Self::Bytes(a), Self::Text(b) | Self::Bytes(b)) => a == b,
            _ => match (self.as_integer(), other.as_integer()) {
                (Some(a), Some(b)) => a == b,
                _ => self == other,
            },
        }
    }
}

/// Named values in the order in which the peer sent them; names may repeat, and then the first one counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table(pub Vec<(Arc<str>, Value)>);

impl Table {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| &**key == name).map(|(_, value)| value)
    }

    /// Replaces every value of that name by one, at the place of the first, or appends it.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.0.iter().position(|(key, _)| &**key == name) {
            Some(at) => {
                self.0[at].1 = value;
                let mut index = 0;
                self.0.retain(|(key, _)| {
                    index += 1;
                    index - 1 <= at || &**key != name
                });
            }
            None => self.0.push((name.into(), value)),
        }
    }

    /// Removes every value of that name and returns the first.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let found = self.get(name).cloned();
        self.0.retain(|(key, _)| &**key != name);
        found
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_compare_by_value_and_never_with_floats() {
        assert!(Value::I32(5).same(&Value::I64(5)));
        assert!(Value::U8(5).same(&Value::I16(5)));
        assert!(!Value::I32(1).same(&Value::F64(1.0)));
        assert!(!Value::Bool(true).same(&Value::I32(1)));
        assert!(Value::text("x").same(&Value::Bytes((*b"x").into())));
    }

    #[test]
    fn set_replaces_every_duplicate() {
        let mut table = Table(vec![("a".into(), Value::I8(1)), ("b".into(), Value::Void), ("a".into(), Value::I8(2))]);
        table.set("a", Value::I8(3));
        assert_eq!(table, Table(vec![("a".into(), Value::I8(3)), ("b".into(), Value::Void)]));
        assert_eq!(table.remove("a"), Some(Value::I8(3)));
        assert_eq!(table.get("a"), None);
    }
}
