//! Basic properties kept as on the wire: looked into where needed, changed in place, never decoded as a whole.

use portolan_core::value::Table;

use super::encode::short;
use super::reader::Reader;
use super::{Limits, Malformed, table};

/// The properties in wire order; the flag of the first is the highest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Property {
    ContentType = 0,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Kind,
    UserId,
    AppId,
    ClusterId,
}

impl Property {
    const COUNT: usize = 14;

    const ALL: [Self; Self::COUNT] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::Headers,
        Self::DeliveryMode,
        Self::Priority,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Timestamp,
        Self::Kind,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    const fn flag(self) -> u16 {
        0x8000 >> self as u8
    }
}

/// Bit 1 has no meaning; bit 0 announces another flag word, which nobody sends and clients cannot read.
const INVALID_FLAGS: u16 = 0b11;

/// Properties whose form is known to be right.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    flags: u16,
    /// The values as on the wire, empty where absent.
    values: [&'a [u8]; Property::COUNT],
}

/// Finds every property and checks the headers table against the limits.
pub fn parse(raw: &[u8], limits: Limits) -> Result<Properties<'_>, Malformed> {
    let properties = locate(raw)?;
    if let Some(headers) = properties.headers() {
        table::scan(headers, limits)?;
    }
    Ok(properties)
}

/// Finds every property; the values fill the bytes exactly. The inside of the headers table is not looked at.
pub(crate) fn locate(raw: &[u8]) -> Result<Properties<'_>, Malformed> {
    values(raw).ok_or(Malformed::Properties)
}

fn values(raw: &[u8]) -> Option<Properties<'_>> {
    let mut reader = Reader(raw);
    let flags = u16::from_be_bytes(reader.array()?);
    if flags & INVALID_FLAGS != 0 {
        return None;
    }
    let mut values = [&[][..]; Property::COUNT];
    for (property, value) in Property::ALL.into_iter().zip(&mut values) {
        if flags & property.flag() == 0 {
            continue;
        }
        let start = reader.0;
        match property {
            Property::Headers => _ = reader.long()?,
            Property::DeliveryMode | Property::Priority => _ = reader.octet()?,
            Property::Timestamp => _ = reader.take(8)?,
            _ => _ = reader.short()?,
        }
        *value = start.get(..start.len() - reader.0.len())?;
    }
    reader.is_empty().then_some(Properties { flags, values })
}

impl<'a> Properties<'a> {
    fn value(&self, property: Property) -> Option<&'a [u8]> {
        (self.flags & property.flag() != 0).then(|| self.values.get(property as usize).copied().unwrap_or_default())
    }

    fn text(&self, property: Property) -> Option<&'a [u8]> {
        self.value(property)?.get(1..)
    }

    fn octet(&self, property: Property) -> Option<u8> {
        self.value(property)?.first().copied()
    }

    /// MIME type of the body.
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.text(Property::ContentType)
    }

    /// Encoding of the body.
    pub fn content_encoding(&self) -> Option<&'a [u8]> {
        self.text(Property::ContentEncoding)
    }

    /// The encoded headers table, without its length.
    pub fn headers(&self) -> Option<&'a [u8]> {
        self.value(Property::Headers)?.get(4..)
    }

    /// 2 for persistent.
    pub fn delivery_mode(&self) -> Option<u8> {
        self.octet(Property::DeliveryMode)
    }

    /// Priority.
    pub fn priority(&self) -> Option<u8> {
        self.octet(Property::Priority)
    }

    /// What the application correlates by.
    pub fn correlation_id(&self) -> Option<&'a [u8]> {
        self.text(Property::CorrelationId)
    }

    /// Where answers go.
    pub fn reply_to(&self) -> Option<&'a [u8]> {
        self.text(Property::ReplyTo)
    }

    /// Time to live in milliseconds, as text.
    pub fn expiration(&self) -> Option<&'a [u8]> {
        self.text(Property::Expiration)
    }

    /// The application's name for the message.
    pub fn message_id(&self) -> Option<&'a [u8]> {
        self.text(Property::MessageId)
    }

    /// Seconds since the epoch.
    pub fn timestamp(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value(Property::Timestamp)?.try_into().ok()?))
    }

    /// The application's type of message.
    pub fn kind(&self) -> Option<&'a [u8]> {
        self.text(Property::Kind)
    }

    /// Who says to have sent it.
    pub fn user_id(&self) -> Option<&'a [u8]> {
        self.text(Property::UserId)
    }

    /// The application that sent it.
    pub fn app_id(&self) -> Option<&'a [u8]> {
        self.text(Property::AppId)
    }

    /// Reserved by 0-9-1, yet carried.
    pub fn cluster_id(&self) -> Option<&'a [u8]> {
        self.text(Property::ClusterId)
    }
}

/// What the broker must know of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PropertyFacts<'a> {
    /// 2 for persistent.
    pub delivery_mode: Option<u8>,
    /// Priority.
    pub priority: Option<u8>,
    /// Time to live in milliseconds, as text.
    pub expiration: Option<&'a [u8]>,
    /// Who says to have sent it.
    pub user_id: Option<&'a [u8]>,
    /// Where answers go.
    pub reply_to: Option<&'a [u8]>,
    /// The encoded headers table without its length; its inside is not checked.
    pub headers: Option<&'a [u8]>,
}

/// Reads what the broker must know, and checks that flags and values fill the bytes exactly.
///
/// Most messages have no properties or only a delivery mode; these cost next to nothing.
#[inline]
pub fn facts(raw: &[u8]) -> Result<PropertyFacts<'_>, Malformed> {
    const ONLY_DELIVERY_MODE: u8 = (Property::DeliveryMode.flag() >> 8) as u8;
    match *raw {
        [0, 0] => Ok(PropertyFacts::default()),
        [ONLY_DELIVERY_MODE, 0, mode] => Ok(PropertyFacts { delivery_mode: Some(mode), ..PropertyFacts::default() }),
        _ => facts_of_many(raw),
    }
}

fn facts_of_many(raw: &[u8]) -> Result<PropertyFacts<'_>, Malformed> {
    let found = locate(raw)?;
    Ok(PropertyFacts {
        delivery_mode: found.delivery_mode(),
        priority: found.priority(),
        expiration: found.expiration(),
        user_id: found.user_id(),
        reply_to: found.reply_to(),
        headers: found.headers(),
    })
}

/// The headers, an empty table when there are none.
pub fn headers(raw: &[u8], limits: Limits) -> Result<Table, Malformed> {
    locate(raw)?.headers().map_or_else(|| Ok(Table::default()), |headers| table::read(headers, limits))
}

/// What to do with one property.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Edit<T> {
    /// Leave it as it is, present or not.
    #[default]
    Keep,
    /// Leave it out.
    Remove,
    /// Set it to that.
    Set(T),
}

/// Changes to properties; everything else stays byte for byte.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Edits<'a> {
    /// The headers table.
    pub headers: Edit<&'a Table>,
    /// Where answers go.
    pub reply_to: Edit<&'a [u8]>,
    /// Time to live in milliseconds, as text.
    pub expiration: Edit<&'a [u8]>,
}

/// The properties with those changes.
pub fn rewrite(raw: &[u8], edits: Edits<'_>) -> Result<Vec<u8>, Malformed> {
    let found = locate(raw)?;
    let mut flags = found.flags;
    let mut out = Vec::with_capacity(raw.len() + 64);
    out.extend_from_slice(&[0, 0]);
    for (property, kept) in Property::ALL.into_iter().zip(found.values) {
        let present = match property {
            Property::Headers => edit(&mut out, edits.headers, table::put),
            Property::ReplyTo => edit(&mut out, edits.reply_to, put_short),
            Property::Expiration => edit(&mut out, edits.expiration, put_short),
            _ => None,
        };
        match present {
            Some(true) => flags |= property.flag(),
            Some(false) => flags &= !property.flag(),
            None => out.extend_from_slice(kept),
        }
    }
    if let Some(place) = out.first_chunk_mut() {
        *place = flags.to_be_bytes();
    }
    Ok(out)
}

/// New properties: `put` appends the value of each as on the wire, or says that it is not there.
pub(crate) fn build(mut put: impl FnMut(Property, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut flags = 0;
    let mut out = vec![0, 0];
    for property in Property::ALL {
        if put(property, &mut out) {
            flags |= property.flag();
        }
    }
    if let Some(place) = out.first_chunk_mut() {
        *place = flags.to_be_bytes();
    }
    out
}

/// Whether the property is there after the edit, or `None` when it is kept.
fn edit<T>(out: &mut Vec<u8>, edit: Edit<T>, put: impl FnOnce(&mut Vec<u8>, T)) -> Option<bool> {
    match edit {
        Edit::Keep => None,
        Edit::Remove => Some(false),
        Edit::Set(value) => {
            put(out, value);
            Some(true)
        }
    }
}

pub(crate) fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    let text = short(text);
    out.push(u8::try_from(text.len()).unwrap_or_default());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests;
