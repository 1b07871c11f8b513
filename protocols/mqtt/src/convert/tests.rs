//! What becomes of properties on their way in and out.

use proptest::prelude::*;

use super::*;
use crate::codec::property::{Place, items, read as check};
use portolan_core::message::Span;

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
        ttl: Some(1500),
    };
    Message::assemble(facts, b"amq.topic", b"a.b", properties, b"body")
}

fn published(flags: u8, properties: &[(Id, property::Value<'_>)]) -> Message {
    let mut raw = vec![flags];
    for (id, value) in properties {
        assert!(put_property(&mut raw, *id, *value));
    }
    message(Origin::Mqtt, &raw)
}

/// As it would be delivered after it came by another protocol.
fn written(hub: &Hub) -> Message {
    let message = message(Origin::Amqp091, b"");
    message_of(&message, &Mqtt.encode(hub, &message))
}

fn message_of(like: &Message, properties: &[u8]) -> Message {
    let facts = Facts { origin: Origin::Mqtt, ..*like.facts() };
    Message::assemble(facts, like.exchange(), like.routing_key(), properties, like.body())
}

fn pairs(message: &Message) -> Vec<(&str, &str)> {
    user_properties(parts(message).1).collect()
}

fn hub_of(entries: &[(&str, Value)]) -> Hub {
    let entries = entries.iter().map(|(name, value)| ((*name).into(), value.clone()));
    Hub { application: Table(entries.collect()), ..Hub::default() }
}

#[test]
fn everything_that_mqtt_has_a_place_for_is_read() {
    use property::Value as V;
    let message = published(
        2 | RETAIN,
        &[
            (Id::PayloadFormatIndicator, V::Byte(1)),
            (Id::ContentType, V::Text("text/plain")),
            (Id::ResponseTopic, V::Text("re/ply.1")),
            (Id::CorrelationData, V::Bytes(b"c")),
            (Id::UserProperty, V::Pair("k", "1")),
            (Id::UserProperty, V::Pair(names::TIMESTAMP, "77")),
            (Id::UserProperty, V::Pair(names::USER_ID, "admin")),
            (Id::UserProperty, V::Pair("k", "2")),
        ],
    );
    let hub = Mqtt.hub(&message);
    let expected = Hub {
        correlation_id: Some(Value::text("c")),
        reply_topic: Some("re.ply/1".into()),
        content_type: Some("text/plain".into()),
        timestamp: Some(77),
        text: true,
        retain: true,
        published_qos: Some(2),
        ..hub_of(&[("k", Value::text("1")), (names::USER_ID, Value::text("admin")), ("k", Value::text("2"))])
    };
    assert_eq!(hub, expected, "who sent it is not for the sender to say");
    assert_eq!(Mqtt.headers(&message).get("k"), Some(&Value::text("1")));
    assert_eq!(Mqtt.expiration(&message).as_deref(), Some("1500"));
}

#[test]
fn what_mqtt_has_no_place_for_becomes_a_user_property_and_comes_back() {
    let hub = Hub {
        message_id: Some(Value::text("m")),
        reply_to: Some("q".into()),
        content_encoding: Some("gzip".into()),
        subject: Some("kind".into()),
        timestamp: Some(5),
        app_id: Some("app".into()),
        ..hub_of(&[("n", Value::I32(7)), ("list", Value::Array(vec![])), ("b", Value::Bool(true))])
    };
    let message = written(&Hub { user_id: Some("guest".into()), ..hub.clone() });
    let expected = [
        ("n", "7"),
        ("b", "true"),
        (names::MESSAGE_ID, "m"),
        (names::CONTENT_ENCODING, "gzip"),
        (names::SUBJECT, "kind"),
        (names::APP_ID, "app"),
        (names::USER_ID, "guest"),
        (names::REPLY_TO, "q"),
        (names::TIMESTAMP, "5"),
    ];
    assert_eq!(pairs(&message), expected);
    let back = Mqtt.hub(&message);
    let application =
        hub_of(&[("n", Value::text("7")), ("b", Value::text("true")), (names::USER_ID, Value::text("guest"))]);
    assert_eq!(back, Hub { application: application.application, published_qos: Some(1), ..hub });
}

#[test]
fn a_key_without_a_topic_stays_a_user_property() {
    let of = |key: &str| written(&Hub { reply_topic: Some(key.into()), ..Hub::default() });
    let first = |message: &Message| items(parts(message).1).map(|(id, _)| id).next();
    assert_eq!(first(&of("re.p")), Some(Id::ResponseTopic));
    for key in ["", "a.#", "a.*", "a\n", &"k".repeat(70_000)] {
        let message = of(key);
        let kept = pairs(&message);
        assert!(kept.iter().all(|(name, _)| *name == names::REPLY_TOPIC), "{kept:?}");
        assert_eq!(kept.len(), usize::from(key.len() <= 65_535));
    }
}

#[test]
fn strings_are_what_clients_take() {
    let long = "x".repeat(65_536);
    let hub = Hub {
        content_type: Some("a\0b".into()),
        correlation_id: Some(Value::text(&long)),
        text: true,
        ..hub_of(&[("k\n", Value::text("v\u{7f}")), ("long", Value::text(&long)), ("bad", Value::text(b"\xff"))])
    };
    let message = written(&hub);
    assert_eq!(pairs(&message), [("k\u{fffd}", "v\u{fffd}")]);
    let ids: Vec<Id> = items(parts(&message).1).map(|(id, _)| id).collect();
    assert_eq!(ids, [Id::PayloadFormatIndicator, Id::ContentType, Id::UserProperty]);
    check(parts(&message).1, Place::Publish, |_, _| ()).unwrap();
}

#[test]
fn a_block_has_a_bound_and_what_fits_is_kept() {
    let big = "x".repeat(60_000);
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let mut entries: Vec<(&str, Value)> = names.iter().map(|name| (&**name, Value::text(&big))).collect();
    entries.push(("small", Value::I8(1)));
    let message = written(&hub_of(&entries));
    assert!(message.properties().len() <= MOST);
    assert_eq!(pairs(&message).len(), 18);
    assert_eq!(pairs(&message).last(), Some(&("small", "1")));
}

#[test]
fn a_payload_that_is_not_text_is_not_called_text() {
    let like = message(Origin::Amqp091, b"");
    let like = Message::assemble(*like.facts(), b"amq.topic", b"a", b"", b"\xff");
    assert_eq!(Mqtt.encode(&Hub { text: true, ..Hub::default() }, &like), [1]);
}

#[test]
fn a_dead_letter_has_other_headers_and_no_expiry() {
    let message = published(
        1,
        &[(Id::ContentType, property::Value::Text("t")), (Id::UserProperty, property::Value::Pair("k", "v"))],
    );
    let dead = Mqtt.dead_lettered(&message, &hub_of(&[("x", Value::I8(1))]).application, "dlx", b"dead");
    assert_eq!((dead.exchange(), dead.routing_key(), dead.facts().ttl), (&b"dlx"[..], &b"dead"[..], None));
    assert_eq!(pairs(&dead), [("x", "1")]);
    assert_eq!(Mqtt.hub(&dead).content_type.as_deref(), Some("t"));
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Void),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        any::<u8>().prop_map(Value::U8),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::text),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into())),
        any::<u64>().prop_map(Value::Timestamp),
        Just(Value::Array(vec![Value::Void])),
        Just(Value::Table(Table::default())),
    ]
}

fn any_hub() -> impl Strategy<Value = Hub> {
    let text = || prop::option::of("\\PC{0,4}|[\0-\u{20}]{1,2}|[.*#/+]{0,3}".prop_map(Arc::<str>::from));
    let entries = prop::collection::vec(("[ab\n]{0,2}".prop_map(Arc::<str>::from), scalar()), 0..6);
    let ids = (prop::option::of(scalar()), prop::option::of(scalar()));
    (ids, (text(), text(), text(), text()), any::<(Option<u64>, bool, bool)>(), entries).prop_map(
        |((message_id, correlation_id), (one, two, three, four), (timestamp, text, retain), entries)| Hub {
            message_id,
            correlation_id,
            reply_topic: one,
            reply_to: two.clone(),
            content_type: two,
            content_encoding: three.clone(),
            subject: three,
            user_id: four.clone(),
            app_id: four,
            timestamp,
            text,
            retain,
            published_qos: None,
            application: Table(entries),
        },
    )
}

proptest! {
    #[test]
    fn mqtt_comes_back_whole(
        flags in prop::sample::select(vec![0, 1, 2, RETAIN, 1 | RETAIN, 2 | RETAIN]),
        user in prop::collection::vec(("[abé ]{0,2}", "\\PC{0,3}"), 0..6),
        format in prop::option::of(0..=1_u8),
        (kind, topic) in (prop::option::of("[a-z/é]{0,3}"), prop::option::of("[a-z/.*é]{1,5}")),
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        use property::Value as V;
        let mut properties = Vec::new();
        // "Not UTF-8", which is what is meant by leaving it out.
        properties.extend(format.filter(|format| *format == 1).map(|format| (Id::PayloadFormatIndicator, V::Byte(format))));
        properties.extend(kind.as_deref().map(|kind| (Id::ContentType, V::Text(kind))));
        properties.extend(topic.as_deref().map(|topic| (Id::ResponseTopic, V::Text(topic))));
        properties.extend(data.as_deref().map(|data| (Id::CorrelationData, V::Bytes(data))));
        properties.extend(user.iter().map(|(name, text)| (Id::UserProperty, V::Pair(name, text))));
        let message = published(flags, &properties);
        prop_assert_eq!(Mqtt.encode(&Mqtt.hub(&message), &message), message.properties());
    }

    #[test]
    fn whatever_is_written_is_a_valid_block(hub in any_hub()) {
        let message = written(&hub);
        let (flags, block) = parts(&message);
        prop_assert_eq!(flags, 1 | if hub.retain { RETAIN } else { 0 });
        prop_assert!(check(block, Place::Publish, |_, _| ()).is_ok());
        // What has a text is there, in its order.
        let texts: Vec<_> = hub.application.0.iter().filter_map(|(_, value)| text::of(value)).collect();
        let pairs = pairs(&message).into_iter().filter(|(name, _)| *name != names::REPLY_TOPIC);
        let kept: Vec<_> = pairs.take(texts.len()).map(|(_, text)| text).collect();
        prop_assert_eq!(kept, texts);
    }

    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..60)) {
        let message = message(Origin::Mqtt, &raw);
        let _ = (Mqtt.encode(&Mqtt.hub(&message), &message), Mqtt.headers(&message));
    }
}
