//! The kinds of value that configuration keys have: sizes, periods, shares of memory, addresses and secrets.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes: `131072`, `"128 KiB"`, `"50 MB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// As a length in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        amount(text, SIZE_UNITS, 1).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &SIZE_UNITS[..4];
        match binary.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A length of time: `10` (seconds), `"500ms"`, `"10s"`, `"30m"`, `"12h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const TIME_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Period {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    fn parse(text: &str) -> Option<Self> {
        amount(text, TIME_UNITS, 1_000).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match TIME_UNITS.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", ms / unit),
            None => write!(f, "{}s", ms / 1_000),
        }
    }
}

/// Digits, an optional space and an optional unit; `bare` is the unit of a number without one.
fn amount(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = match unit.trim() {
        "" => bare,
        name => units.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?.1,
    };
    number.checked_mul(unit)
}

/// An amount of memory: a share of what the machine or its control group has (`0.4`, `"40%"`), or bytes (`"4 GiB"`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Memory {
    /// A share, from 0 to 1.
    Share(f64),
    /// So many bytes.
    Bytes(ByteSize),
}

impl Memory {
    /// In bytes, of a machine that has `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Share(share) => (total as f64 * share) as u64,
            Self::Bytes(size) => size.0,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.trim().strip_suffix('%') {
            return Self::share(percent.trim().parse::<f64>().ok()? / 100.0);
        }
        match ByteSize::parse(text) {
            Some(size) => Some(Self::Bytes(size)),
            None => Self::share(text.trim().parse().ok()?),
        }
    }

    fn share(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self::Share(share))
    }
}

/// A user's plain password as it stood in the configuration. It is never printed, and forgotten once hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for hashing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(password) => Ok(Self(password)),
            // The usual words for a wrong type would repeat the value.
            _ => Err(de::Error::custom("write the password in quotes")),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// Reads a value that may be a number or text, as [`ByteSize`], [`Period`] and [`Memory`] are written.
struct NumberOrText<T> {
    expected: &'static str,
    text: fn(&str) -> Option<T>,
    share: fn(f64) -> Option<T>,
}

impl<T> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        // Through the text form, so that a bare number means the same with and without quotes.
        (self.text)(&number.to_string()).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        (self.share)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a size such as 131072, \"128 KiB\" or \"1 GiB\"";
        deserializer.deserialize_any(NumberOrText { expected, text: Self::parse, share: |_| None })
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time such as \"500ms\", \"10s\", \"30m\" or \"12h\"";
        deserializer.deserialize_any(NumberOrText { expected, text: Self::parse, share: |_| None })
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a share of memory such as 0.4 or \"40%\", or a size such as \"4 GiB\"";
        deserializer.deserialize_any(NumberOrText { expected, text: Self::parse, share: Self::share })
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => serializer.serialize_f64(*share),
            Self::Bytes(size) => size.serialize(serializer),
        }
    }
}

/// The addresses of one listener: a list, or one text with commas, as it comes from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Addresses(pub Vec<SocketAddr>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of addresses such as [\"0.0.0.0:5672\", \"[::]:5672\"]")]
        enum Form {
            List(Vec<String>),
            Text(String),
        }
        let texts = match Form::deserialize(deserializer)? {
            Form::List(texts) => texts,
            Form::Text(text) => text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect(),
        };
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                de::Error::custom(format!(
                    "`{text}` is not an address: write IP:port, such as \"0.0.0.0:5672\", \"127.0.0.1:5672\" or \"[::]:5672\""
                ))
            })
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Serialize)]
    struct Keys<T> {
        key: T,
    }

    fn read<T: for<'de> Deserialize<'de>>(value: &str) -> Option<T> {
        toml::from_str::<Keys<T>>(&format!("key = {value}")).ok().map(|k| k.key)
    }

    #[test]
    fn sizes() {
        let table = [
            ("131072", Some(131_072)),
            ("\"131072\"", Some(131_072)),
            ("\"128 KiB\"", Some(131_072)),
            ("\"128KiB\"", Some(131_072)),
            ("\"1gib\"", Some(1 << 30)),
            ("\"50 MB\"", Some(50_000_000)),
            ("\"1_000 B\"", Some(1_000)),
            ("0", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("\"\"", None),
            ("\"12 parsecs\"", None),
            ("\"99999999999 TiB\"", None),
        ];
        for (text, bytes) in table {
            assert_eq!(read::<ByteSize>(text), bytes.map(ByteSize), "{text}");
        }
    }

    #[test]
    fn periods() {
        let table = [
            ("10", Some(10_000)),
            ("\"10\"", Some(10_000)),
            ("\"500ms\"", Some(500)),
            ("\"30 m\"", Some(1_800_000)),
            ("\"7d\"", Some(604_800_000)),
            ("\"soon\"", None),
        ];
        for (text, ms) in table {
            assert_eq!(read::<Period>(text), ms.map(|ms| Period(Duration::from_millis(ms))), "{text}");
        }
    }

    #[test]
    fn memory_is_a_share_or_a_size() {
        let table = [
            ("0.4", Some(Memory::Share(0.4))),
            ("\"40%\"", Some(Memory::Share(0.4))),
            ("\"0.4\"", Some(Memory::Share(0.4))),
            ("\"4 GiB\"", Some(Memory::Bytes(ByteSize(4 << 30)))),
            ("1.5", None),
            ("\"140%\"", None),
            ("0.0", None),
        ];
        for (text, memory) in table {
            assert_eq!(read::<Memory>(text), memory, "{text}");
        }
        assert_eq!(Memory::Share(0.5).of(1000), 500);
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1_000, 1_024, 131_072, 128 << 20, 50_000_000] {
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }
        for ms in [0, 1, 500, 1_000, 90_000, 1_800_000] {
            let period = Period(Duration::from_millis(ms));
            assert_eq!(Period::parse(&period.to_string()), Some(period));
        }
    }

    #[test]
    fn addresses_are_a_list_or_text_with_commas() {
        let both = Addresses(vec!["0.0.0.0:5672".parse().unwrap(), "[::]:5672".parse().unwrap()]);
        assert_eq!(read::<Addresses>("[\"0.0.0.0:5672\", \"[::]:5672\"]"), Some(both.clone()));
        assert_eq!(read::<Addresses>("\"0.0.0.0:5672, [::]:5672\""), Some(both));
        assert_eq!(read::<Addresses>("[]"), Some(Addresses(vec![])));
        assert_eq!(read::<Addresses>("\"\""), Some(Addresses(vec![])));
        assert_eq!(read::<Addresses>("[\"5672\"]"), None);
    }

    #[test]
    fn secrets_do_not_print() {
        let keys = Keys { key: Secret::new("hunter2") };
        assert!(!format!("{:?}", keys.key).contains("hunter2"));
        assert!(!toml::to_string(&keys).unwrap().contains("hunter2"));
    }
}
