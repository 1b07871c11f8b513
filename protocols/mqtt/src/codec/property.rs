//! Properties of MQTT 5.0: which packet may carry which, what their values may be, and reading a block of them.

use super::malformed::Malformed;
use super::reader::{Reader, holds};
use crate::reason::Reason;

/// How a property's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Byte,
    Two,
    Four,
    Var,
    Text,
    Bytes,
    Pair,
}

/// A property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Byte
    Byte(u8),
    /// Two Byte Integer
    Two(u16),
    /// Four Byte Integer
    Four(u32),
    /// Variable Byte Integer
    Var(u32),
    /// UTF-8 Encoded String
    Text(&'a str),
    /// Binary Data
    Bytes(&'a [u8]),
    /// UTF-8 String Pair: name and value
    Pair(&'a str, &'a str),
}

macro_rules! properties {
    ($($name:ident = $code:literal, $form:ident, $text:literal;)*) => {
        /// A property's identifier (2.2.2.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Id {
            $(#[doc = $text] $name = $code,)*
        }

        impl Id {
            /// Every property, by rising code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The property with this code.
            #[inline]
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name that the specification gives it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            fn form(self) -> Form {
                match self {
                    $(Self::$name => Form::$form,)*
                }
            }

            #[cold]
            fn twice(self) -> Malformed {
                Malformed::protocol(match self {
                    $(Self::$name => concat!("send the property ", $text, " only once"),)*
                })
            }

            #[cold]
            fn misplaced(self) -> Malformed {
                Malformed::protocol(match self {
                    $(Self::$name => concat!("the property ", $text, " does not belong into this packet"),)*
                })
            }
        }
    };
}

properties! {
    PayloadFormatIndicator = 0x01, Byte, "Payload Format Indicator";
    MessageExpiryInterval = 0x02, Four, "Message Expiry Interval";
    ContentType = 0x03, Text, "Content Type";
    ResponseTopic = 0x08, Text, "Response Topic";
    CorrelationData = 0x09, Bytes, "Correlation Data";
    SubscriptionIdentifier = 0x0b, Var, "Subscription Identifier";
    SessionExpiryInterval = 0x11, Four, "Session Expiry Interval";
    AssignedClientIdentifier = 0x12, Text, "Assigned Client Identifier";
    ServerKeepAlive = 0x13, Two, "Server Keep Alive";
    AuthenticationMethod = 0x15, Text, "Authentication Method";
    AuthenticationData = 0x16, Bytes, "Authentication Data";
    RequestProblemInformation = 0x17, Byte, "Request Problem Information";
    WillDelayInterval = 0x18, Four, "Will Delay Interval";
    RequestResponseInformation = 0x19, Byte, "Request Response Information";
    ResponseInformation = 0x1a, Text, "Response Information";
    ServerReference = 0x1c, Text, "Server Reference";
    ReasonString = 0x1f, Text, "Reason String";
    ReceiveMaximum = 0x21, Two, "Receive Maximum";
    TopicAliasMaximum = 0x22, Two, "Topic Alias Maximum";
    TopicAlias = 0x23, Two, "Topic Alias";
    MaximumQos = 0x24, Byte, "Maximum QoS";
    RetainAvailable = 0x25, Byte, "Retain Available";
    UserProperty = 0x26, Pair, "User Property";
    MaximumPacketSize = 0x27, Four, "Maximum Packet Size";
    WildcardSubscriptionAvailable = 0x28, Byte, "Wildcard Subscription Available";
    SubscriptionIdentifierAvailable = 0x29, Byte, "Subscription Identifier Available";
    SharedSubscriptionAvailable = 0x2a, Byte, "Shared Subscription Available";
}

impl Id {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether it is about one hop only and so never travels with the message: Message Expiry Interval is written
    /// anew, Will Delay Interval is the server's to obey, the others name things of one connection.
    pub fn is_per_hop(self) -> bool {
        PER_HOP & bit(self) != 0
    }
}

const fn bit(id: Id) -> u64 {
    1 << id as u8
}

const PER_HOP: u64 =
    bit(Id::MessageExpiryInterval) | bit(Id::WillDelayInterval) | bit(Id::TopicAlias) | bit(Id::SubscriptionIdentifier);

/// A place where a client puts properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Connect,
    Will,
    Publish,
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

impl Place {
    /// The properties that a client may put here (2.2.2.2).
    const fn allowed(self) -> u64 {
        const MESSAGE: u64 = bit(Id::PayloadFormatIndicator)
            | bit(Id::MessageExpiryInterval)
            | bit(Id::ContentType)
            | bit(Id::ResponseTopic)
            | bit(Id::CorrelationData);
        const AUTHENTICATION: u64 = bit(Id::AuthenticationMethod) | bit(Id::AuthenticationData);
        let own = match self {
            Self::Connect => {
                AUTHENTICATION
                    | bit(Id::SessionExpiryInterval)
                    | bit(Id::RequestProblemInformation)
                    | bit(Id::RequestResponseInformation)
                    | bit(Id::ReceiveMaximum)
                    | bit(Id::TopicAliasMaximum)
                    | bit(Id::MaximumPacketSize)
            }
            Self::Will => MESSAGE | bit(Id::WillDelayInterval),
            Self::Publish => MESSAGE | bit(Id::TopicAlias),
            Self::Ack => bit(Id::ReasonString),
            Self::Subscribe => bit(Id::SubscriptionIdentifier),
            Self::Unsubscribe => 0,
            Self::Disconnect => bit(Id::SessionExpiryInterval) | bit(Id::ReasonString),
            Self::Auth => AUTHENTICATION | bit(Id::ReasonString),
        };
        own | bit(Id::UserProperty)
    }
}

/// Reads a block that a client sent, handing each property to `each` once all about it is known to be right, save
/// that a later property may still be wrong.
pub(crate) fn read<'a>(block: &'a [u8], place: Place, mut each: impl FnMut(Id, Value<'a>)) -> Result<(), Malformed> {
    let allowed = place.allowed();
    let mut seen = 0;
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        let (id, value) = item(&mut reader)?;
        if allowed & bit(id) == 0 {
            return Err(id.misplaced());
        }
        if seen & bit(id) != 0 {
            return Err(id.twice());
        }
        seen |= bit(id) & !bit(Id::UserProperty);
        check(id, value)?;
        each(id, value);
    }
    Ok(())
}

fn item<'a>(reader: &mut Reader<'a>) -> Result<(Id, Value<'a>), Malformed> {
    const TEXT: &str = "a property's text is not UTF-8 or holds U+0000";
    // Identifiers are variable byte integers, and all of them are below 128.
    let code = reader.byte()?;
    let id =
        Id::from_code(code).ok_or(Malformed::packet("a property has an identifier that MQTT 5.0 does not know"))?;
    let value = match id.form() {
        Form::Byte => Value::Byte(reader.byte()?),
        Form::Two => Value::Two(reader.two()?),
        Form::Four => Value::Four(reader.four()?),
        Form::Var => Value::Var(reader.var()?),
        Form::Text => Value::Text(reader.text(TEXT)?),
        Form::Bytes => Value::Bytes(reader.bytes()?),
        // MQTT5-1.5.7-1: both halves are strings.
        Form::Pair => Value::Pair(reader.text(TEXT)?, reader.text(TEXT)?),
    };
    Ok((id, value))
}

/// Values that are errors wherever the property stands.
fn check(id: Id, value: Value<'_>) -> Result<(), Malformed> {
    let wrong = match (id, value) {
        (Id::PayloadFormatIndicator, Value::Byte(2..)) => "Payload Format Indicator is neither 0 nor 1",
        (Id::RequestProblemInformation, Value::Byte(2..)) => "Request Problem Information is neither 0 nor 1",
        (Id::RequestResponseInformation, Value::Byte(2..)) => "Request Response Information is neither 0 nor 1",
        (Id::ReceiveMaximum, Value::Two(0)) => "Receive Maximum is 0; leave it out or allow at least 1",
        (Id::MaximumPacketSize, Value::Four(0)) => "Maximum Packet Size is 0; leave it out if there is no limit",
        (Id::SubscriptionIdentifier, Value::Var(0)) => "Subscription Identifier is 0; use 1 to 268435455",
        // MQTT5-3.3.2-8
        (Id::TopicAlias, Value::Two(0)) => {
            return Err(Malformed::new(Reason::TopicAliasInvalid, "Topic Alias is 0; use 1 up to Topic Alias Maximum"));
        }
        // MQTT5-3.3.2-14; an empty one could not be published to.
        (Id::ResponseTopic, Value::Text("")) => "Response Topic is empty",
        (Id::ResponseTopic, Value::Text(topic)) if holds(topic.as_bytes(), [b'+', b'#', b'#']) => {
            "Response Topic holds a wildcard"
        }
        _ => return Ok(()),
    };
    Err(Malformed::protocol(wrong))
}

/// The properties of a block that was found valid, in their order.
///
/// It ends at the first byte that is not as it should be.
pub fn items(block: &[u8]) -> Items<'_> {
    Items { reader: Reader::new(block) }
}

/// Iterator over the properties of a block.
#[derive(Clone)]
pub struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = (Id, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let found = item(&mut self.reader).ok();
        if found.is_none() {
            self.reader = Reader::new(&[]);
        }
        found
    }
}

/// The user properties of a valid block, in their order, repeated names included.
pub fn user_properties(block: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    items(block).filter_map(|(_, value)| match value {
        Value::Pair(name, text) => Some((name, text)),
        _ => None,
    })
}

/// What of a message's valid block travels on with it: everything that is not about one hop only.
pub fn travelling(block: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if items(block).all(|(id, _)| !id.is_per_hop()) {
        return block.into();
    }
    let mut kept = Vec::with_capacity(block.len());
    let mut reader = Reader::new(block);
    while let (here, Ok((id, _))) = (reader.rest, item(&mut reader)) {
        if !id.is_per_hop() {
            let size = here.len() - reader.rest.len();
            kept.extend(here.iter().take(size));
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use proptest::prelude::*;

    /// A block of one property with a value that is right for it.
    fn sample(id: Id) -> Vec<u8> {
        let mut block = vec![id.code()];
        block.extend(match id.form() {
            Form::Byte | Form::Var => &[1][..],
            Form::Two => &[0, 1],
            Form::Four => &[0, 0, 0, 1],
            Form::Text | Form::Bytes => &[0, 1, b'x'],
            Form::Pair => &[0, 1, b'k', 0, 1, b'v'],
        });
        block
    }

    fn verdict(block: &[u8], place: Place) -> Option<u8> {
        read(block, place, |_, _| ()).err().map(|malformed| malformed.reason.code())
    }

    #[test]
    fn each_property_belongs_where_the_specification_puts_it() {
        let table: [(Place, &[u8]); 8] = [
            (Place::Connect, &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
            (Place::Will, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
            (Place::Publish, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26]), // MQTT5-3.3.4-6: no 0x0b from a client
            (Place::Ack, &[0x1f, 0x26]),
            (Place::Subscribe, &[0x0b, 0x26]),
            (Place::Unsubscribe, &[0x26]),
            (Place::Disconnect, &[0x11, 0x1f, 0x26]), // 0x1c is the server's
            (Place::Auth, &[0x15, 0x16, 0x1f, 0x26]),
        ];
        for (place, ids) in table {
            for id in Id::ALL {
                let block = sample(*id);
                let expected = (!ids.contains(&id.code())).then_some(0x82);
                assert_eq!(verdict(&block, place), expected, "{id:?} in {place:?}");
                if expected.is_none() {
                    let twice = (*id != Id::UserProperty).then_some(0x82);
                    assert_eq!(verdict(&block.repeat(2), place), twice, "{id:?} twice in {place:?}");
                    for cut in 1..block.len() {
                        assert_eq!(verdict(&block[..cut], place), Some(0x81), "{id:?} cut in {place:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unknown_identifier_is_malformed() {
        for code in (0..=u8::MAX).filter(|code| Id::from_code(*code).is_none()) {
            assert_eq!(verdict(&[code, 0, 1], Place::Publish), Some(0x81), "{code}");
        }
    }

    #[test]
    fn values_that_are_errors() {
        for (block, place, reason) in [
            (&[0x01, 2][..], Place::Publish, 0x82),
            (&[0x17, 2], Place::Connect, 0x82),
            (&[0x19, 2], Place::Connect, 0x82),
            (&[0x21, 0, 0], Place::Connect, 0x82),
            (&[0x27, 0, 0, 0, 0], Place::Connect, 0x82),
            (&[0x0b, 0], Place::Subscribe, 0x82),
            (&[0x0b, 0x81, 0], Place::Subscribe, 0x81),  // MQTT5-1.5.5-1
            (&[0x23, 0, 0], Place::Publish, 0x94),       // MQTT5-3.3.2-8
            (&[0x08, 0, 1, b'+'], Place::Publish, 0x82), // MQTT5-3.3.2-14
            (&[0x08, 0, 0], Place::Publish, 0x82),
            (&[0x08, 0, 1, 0xff], Place::Publish, 0x81), // MQTT5-3.3.2-13
            (&[0x03, 0, 1, 0xff], Place::Publish, 0x81), // MQTT5-3.3.2-19
            (&[0x03, 0, 1, 0], Place::Publish, 0x81),    // MQTT5-1.5.4-2
            (&[0x26, 0, 1, b'k', 0, 1, 0xff], Place::Publish, 0x81), // MQTT5-1.5.7-1
            (&[0x26, 0, 1, 0xff, 0, 1, b'v'], Place::Publish, 0x81),
        ] {
            assert_eq!(verdict(block, place), Some(reason), "{block:x?} in {place:?}");
        }
        for block in [&[0x01, 0][..], &[0x02, 0, 0, 0, 0], &[0x09, 0, 0], &[0x03, 0, 0], &[0x26, 0, 0, 0, 0]] {
            assert_eq!(verdict(block, Place::Publish), None, "{block:x?}");
        }
    }

    #[test]
    fn user_properties_keep_their_order_and_repetitions() {
        // MQTT5-3.3.2-18
        let mut block = Vec::new();
        let pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("b", "3"), ("", "")];
        for (name, text) in pairs {
            encode::put_property(&mut block, Id::UserProperty, Value::Pair(name, text));
        }
        encode::put_property(&mut block, Id::ContentType, Value::Text("x"));
        assert_eq!(verdict(&block, Place::Publish), None);
        assert_eq!(user_properties(&block).collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn what_is_about_one_hop_does_not_travel() {
        let block = [&sample(Id::ContentType)[..], &sample(Id::UserProperty)].concat();
        assert!(matches!(travelling(&block), std::borrow::Cow::Borrowed(same) if same == block));
        let parts =
            [Id::TopicAlias, Id::ContentType, Id::MessageExpiryInterval, Id::UserProperty, Id::WillDelayInterval];
        let mixed: Vec<u8> = parts.into_iter().flat_map(sample).collect();
        assert_eq!(travelling(&mixed), block);
    }

    fn property() -> impl Strategy<Value = (Id, Value<'static>)> {
        let text = prop::sample::select(vec!["", "a", "ünïcode/x", "\u{feff}"]);
        (prop::sample::select(Id::ALL), any::<u32>(), text.clone(), text).prop_map(|(id, number, name, text)| {
            let value = match id.form() {
                Form::Byte => Value::Byte(number as u8),
                Form::Two => Value::Two(number as u16),
                Form::Four => Value::Four(number),
                Form::Var => Value::Var(number >> 4),
                Form::Text => Value::Text(text),
                Form::Bytes => Value::Bytes(text.as_bytes()),
                Form::Pair => Value::Pair(name, text),
            };
            (id, value)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(properties in prop::collection::vec(property(), 0..10)) {
            let mut block = Vec::new();
            for (id, value) in &properties {
                encode::put_property(&mut block, *id, *value);
            }
            prop_assert_eq!(items(&block).collect::<Vec<_>>(), properties.clone());
            let kept: Vec<_> = properties.into_iter().filter(|(id, _)| !id.is_per_hop()).collect();
            let travelling = travelling(&block);
            prop_assert_eq!(items(&travelling).collect::<Vec<_>>(), kept);
        }

        #[test]
        fn no_bytes_make_it_panic(block in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&block, Place::Publish, |_, _| ());
            let _ = items(&block).count();
            let _ = travelling(&block);
        }
    }
}
