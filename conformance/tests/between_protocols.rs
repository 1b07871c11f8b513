//! Messages that enter by one protocol and leave by another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::sync::Arc;

use portolan_amqp091::Amqp091;
use portolan_core::dead_letter::bury;
use portolan_core::definition::DeadLetterTarget;
use portolan_core::effect::{DeadLetter, Reason};
use portolan_core::exchange::QueueTarget;
use portolan_core::hub::{Dialects, Hub};
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::QueueId;
use portolan_core::value::{Table, Value};
use portolan_mqtt::Mqtt;
use portolan_mqtt::codec::encode::put_property;
use portolan_mqtt::codec::property::{self, Id, user_properties};
use proptest::prelude::*;

fn dialects() -> Dialects {
    Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Mqtt) }
}

fn message(origin: Origin, properties: &[u8]) -> Message {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin,
        priority: 0,
        persistent: true,
        ttl: Some(60_000),
    };
    Message::assemble(facts, b"amq.topic", b"plant.7", properties, b"21.5")
}

fn from_mqtt(flags: u8, properties: &[(Id, property::Value<'_>)]) -> Message {
    let mut raw = vec![flags];
    for (id, value) in properties {
        assert!(put_property(&mut raw, *id, *value));
    }
    message(Origin::Mqtt, &raw)
}

fn from_amqp(hub: &Hub) -> Message {
    let bare = message(Origin::Amqp091, &[0, 0]);
    message(Origin::Amqp091, &dialects().amqp091.encode(hub, &bare))
}

/// A client takes the message and publishes it again as it got it, by the other protocol.
fn published_again(message: &Message) -> Message {
    let there = match message.facts().origin {
        Origin::Amqp091 => Origin::Mqtt,
        Origin::Mqtt => Origin::Amqp091,
    };
    let dialects = dialects();
    dialects.translate(&dialects.translate(message, there), message.facts().origin)
}

fn pairs(message: &Message) -> Vec<(&str, &str)> {
    user_properties(&message.properties()[1..]).collect()
}

#[test]
fn mqtt_to_amqp_as_rabbitmq_does() {
    use property::Value as V;
    let sent = from_mqtt(
        2,
        &[
            (Id::ContentType, V::Text("text/plain")),
            (Id::ResponseTopic, V::Text("re/ply")),
            (Id::CorrelationData, V::Bytes(b"\xff\0")),
            (Id::UserProperty, V::Pair("k", "1")),
            (Id::UserProperty, V::Pair("k", "2")),
        ],
    );
    let got = dialects().translate(&sent, Origin::Amqp091);
    let headers = Amqp091Headers(&got).table();
    let expected = Table(vec![
        ("x-mqtt-publish-qos".into(), Value::I8(2)),
        ("x-reply-to-topic".into(), Value::text("re.ply")),
        ("x-correlation-id".into(), Value::Bytes((*b"\xff\0").into())),
        ("k".into(), Value::text("1")),
    ]);
    assert_eq!(headers, expected);
    assert_eq!(dialects().amqp091.expiration(&got).as_deref(), Some("60000"));
    assert_eq!((got.facts().persistent, got.body(), got.routing_key()), (true, &b"21.5"[..], &b"plant.7"[..]));
}

struct Amqp091Headers<'a>(&'a Message);

impl Amqp091Headers<'_> {
    fn table(&self) -> Table {
        dialects().amqp091.headers(self.0)
    }
}

#[test]
fn amqp_to_mqtt_as_rabbitmq_does_and_more() {
    let entries = [
        ("s", Value::text("v")),
        ("i", Value::I64(7)),
        ("b", Value::Bool(true)),
        ("void", Value::Void),
        ("x-reply-to-topic", Value::text("re.p")),
        ("t", Value::Table(Table::default())),
        ("bad", Value::Bytes((*b"\xff").into())),
    ];
    let sent = from_amqp(&Hub {
        content_type: Some("text/plain".into()),
        correlation_id: Some(Value::text("c")),
        message_id: Some(Value::text("m")),
        application: Table(entries.map(|(name, value)| (name.into(), value)).into()),
        ..Hub::default()
    });
    let got = dialects().translate(&sent, Origin::Mqtt);
    let mut expected = from_mqtt(
        1,
        &[
            (Id::ContentType, property::Value::Text("text/plain")),
            (Id::ResponseTopic, property::Value::Text("re/p")),
            (Id::CorrelationData, property::Value::Bytes(b"c")),
        ],
    )
    .properties()
    .to_vec();
    for (name, text) in [("s", "v"), ("i", "7"), ("b", "true"), ("void", ""), ("x-message-id", "m")] {
        put_property(&mut expected, Id::UserProperty, property::Value::Pair(name, text));
    }
    assert_eq!(got.properties(), expected);
    assert_eq!(got.facts().ttl, Some(60_000));
}

#[test]
fn a_device_s_message_that_dies_keeps_what_it_said_and_gets_its_history() {
    let sent = from_mqtt(1, &[(Id::UserProperty, property::Value::Pair("k", "v"))]);
    let dialects = dialects();
    let dying = dialects.translate(&sent, Origin::Amqp091);
    let letter = DeadLetter {
        queue: QueueTarget { id: QueueId(1), shard: 0, slot: 0 },
        queue_name: "q".into(),
        vhost: "/".into(),
        target: DeadLetterTarget { exchange: "amq.topic".into(), routing_key: None },
        message: sent,
        reason: Reason::Expired,
        stored: None,
    };
    let expiration = dialects.amqp091.expiration(&dying);
    let headers = bury(&letter, dialects.amqp091.headers(&dying), expiration.as_deref(), 1000);
    let dead = dialects.amqp091.dead_lettered(&dying, &headers, "amq.topic", b"dead.7");
    assert_eq!(dead.facts().origin, Origin::Amqp091);
    let headers = dialects.amqp091.headers(&dead);
    assert!(matches!(headers.get("x-death"), Some(Value::Array(deaths)) if deaths.len() == 1));
    assert_eq!(headers.get("k"), Some(&Value::text("v")));
    let back = dialects.translate(&dead, Origin::Mqtt);
    let seen = pairs(&back);
    assert_eq!(seen.first(), Some(&("k", "v")));
    assert!(seen.contains(&("x-first-death-queue", "q")));
    assert_eq!(back.facts().ttl, None);
}

fn text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("\\PC{0,6}".prop_map(Arc::<str>::from))
}

fn entries() -> impl Strategy<Value = Vec<(Arc<str>, Value)>> {
    let value = prop_oneof![
        "\\PC{0,6}".prop_map(Value::text),
        any::<i32>().prop_map(Value::I32),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::F64),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| Value::Bytes(bytes.into())),
        Just(Value::Array(vec![Value::Void])),
    ];
    prop::collection::vec(("[a-cé]{0,2}".prop_map(Arc::<str>::from), value), 0..6)
}

fn first_of_each(entries: Vec<(Arc<str>, Value)>) -> Vec<(Arc<str>, Value)> {
    let mut seen = HashSet::new();
    entries.into_iter().filter(|(name, _)| seen.insert(Arc::clone(name))).collect()
}

proptest! {
    #[test]
    fn amqp_to_mqtt_and_back(
        (content_type, content_encoding, subject, app_id, reply_to) in (text(), text(), text(), text(), text()),
        (message_id, correlation_id, timestamp) in (text(), text(), any::<Option<u64>>()),
        reply_topic in prop::option::of("[a-z./]{1,6}".prop_map(Arc::<str>::from)),
        (retain, text) in any::<(bool, bool)>(),
        entries in entries(),
    ) {
        let hub = Hub {
            message_id: message_id.map(|id| Value::text(&*id)),
            correlation_id: correlation_id.map(|id| Value::text(&*id)),
            reply_to,
            reply_topic,
            content_type,
            content_encoding,
            subject,
            timestamp,
            user_id: None,
            app_id,
            text,
            retain,
            published_qos: None,
            application: Table(first_of_each(entries)),
        };
        let back = dialects().amqp091.hub(&published_again(&from_amqp(&hub)));
        let texts = back.application.clone();
        let whole = Hub { application: hub.application.clone(), published_qos: None, ..back };
        prop_assert_eq!(&whole, &hub);
        // Every value that has a text comes back as that text, in order.
        let kept = hub.application.0.iter().filter(|(_, value)| match value {
            Value::Bytes(octets) => std::str::from_utf8(octets).is_ok(),
            value => !matches!(value, Value::Array(_)),
        });
        prop_assert!(kept.map(|(name, _)| name).eq(texts.0.iter().map(|(name, _)| name)));
        for (name, value) in &hub.application.0 {
            if let Value::Text(_) = value {
                prop_assert_eq!(texts.get(name), Some(value));
            }
        }
    }

    #[test]
    fn mqtt_to_amqp_and_back(
        user in prop::collection::vec(("[abé]{0,2}", "\\PC{0,4}"), 0..6),
        (kind, topic) in (prop::option::of("[a-z/é]{0,3}"), prop::option::of("[a-z/.*é]{1,5}")),
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        (format, retain) in any::<(bool, bool)>(),
    ) {
        use property::Value as V;
        let mut seen = HashSet::new();
        let user: Vec<_> = user.into_iter().filter(|(name, _)| seen.insert(name.clone())).collect();
        let mut properties = Vec::new();
        if format {
            properties.push((Id::PayloadFormatIndicator, V::Byte(1)));
        }
        properties.extend(kind.as_deref().map(|kind| (Id::ContentType, V::Text(kind))));
        properties.extend(topic.as_deref().map(|topic| (Id::ResponseTopic, V::Text(topic))));
        properties.extend(data.as_deref().map(|data| (Id::CorrelationData, V::Bytes(data))));
        properties.extend(user.iter().map(|(name, text)| (Id::UserProperty, V::Pair(name, text))));
        let sent = from_mqtt(1 | if retain { 4 } else { 0 }, &properties);
        let back = published_again(&sent);
        prop_assert_eq!(back.properties(), sent.properties());
    }
}
