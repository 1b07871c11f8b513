//! What becomes of properties on their way in and out.

use proptest::prelude::*;

use super::*;
use crate::codec::properties::parse;
use crate::codec::table::tests::any_table;
use portolan_core::message::Span;

/// A protocol whose messages all say the same.
struct Foreign(Hub);

impl Dialect for Foreign {
    fn headers(&self, _: &Message) -> Table {
        self.0.application.clone()
    }
    fn dead_lettered(&self, message: &Message, _: &Table, _: &str, _: &[u8]) -> Message {
        message.clone()
    }
    fn expiration(&self, _: &Message) -> Option<Arc<str>> {
        None
    }
    fn hub(&self, _: &Message) -> Hub {
        self.0.clone()
    }
    fn encode(&self, _: &Hub, _: &Message) -> Vec<u8> {
        Vec::new()
    }
}

fn message(origin: Origin, properties: &[u8]) -> Message {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin,
        priority: 3,
        persistent: true,
        ttl: Some(60_000),
    };
    Message::assemble(facts, b"amq.topic", b"a.b", properties, b"body")
}

fn full() -> Hub {
    Hub {
        message_id: Some(Value::text("m")),
        correlation_id: Some(Value::text("c")),
        reply_to: Some("q".into()),
        reply_topic: Some("re.ply".into()),
        content_type: Some("text/plain".into()),
        content_encoding: Some("gzip".into()),
        subject: Some("kind".into()),
        timestamp: Some(77),
        user_id: Some("guest".into()),
        app_id: Some("app".into()),
        text: true,
        retain: true,
        published_qos: Some(2),
        application: Table(vec![
            ("b".into(), Value::text("1")),
            ("a".into(), Value::text("2")),
            ("b".into(), Value::text("3")),
        ]),
    }
}

#[test]
fn every_property_has_its_place() {
    let raw = Amqp091.encode(&full(), &message(Origin::Mqtt, b""));
    let found = parse(&raw, Limits::default()).unwrap();
    assert_eq!(found.content_type(), Some(&b"text/plain"[..]));
    assert_eq!(found.content_encoding(), Some(&b"gzip"[..]));
    assert_eq!((found.delivery_mode(), found.priority()), (Some(2), Some(3)));
    assert_eq!(found.correlation_id(), Some(&b"c"[..]));
    assert_eq!(found.reply_to(), Some(&b"q"[..]));
    assert_eq!(found.expiration(), Some(&b"60000"[..]));
    assert_eq!(found.message_id(), Some(&b"m"[..]));
    assert_eq!(found.timestamp(), Some(77));
    assert_eq!(found.kind(), Some(&b"kind"[..]));
    assert_eq!(found.user_id(), Some(&b"guest"[..]));
    assert_eq!(found.app_id(), Some(&b"app"[..]));
    let expected = Table(vec![
        ("x-mqtt-publish-qos".into(), Value::I8(2)),
        ("x-mqtt-retain".into(), Value::Bool(true)),
        ("x-mqtt-payload-format".into(), Value::I8(1)),
        ("x-reply-to-topic".into(), Value::text("re.ply")),
        ("b".into(), Value::text("1")),
        ("a".into(), Value::text("2")),
    ]);
    assert_eq!(headers(&raw), expected, "of each name the first");
    let mut back = full();
    back.application.0.pop();
    assert_eq!(Amqp091.hub(&message(Origin::Amqp091, &raw)), back);
}

#[test]
fn what_is_no_short_string_is_a_header() {
    let long = "x".repeat(256);
    let hub = Hub {
        correlation_id: Some(Value::Bytes((*b"\xff").into())),
        message_id: Some(Value::text(&long)),
        content_type: Some(long.as_str().into()),
        ..Hub::default()
    };
    let like = message(Origin::Mqtt, b"");
    let like = Message::assemble(*like.facts(), b"amq.topic", long.as_bytes(), b"", b"");
    let raw = Amqp091.encode(&hub, &like);
    let found = parse(&raw, Limits::default()).unwrap();
    assert_eq!((found.correlation_id(), found.message_id(), found.content_type()), (None, None, None));
    let headers = headers(&raw);
    assert_eq!(headers.get("x-correlation-id"), Some(&Value::Bytes((*b"\xff").into())));
    for name in ["x-message-id", "x-content-type", "x-routing-key"] {
        assert_eq!(headers.get(name), Some(&Value::text(&long)), "{name}");
    }
    let back = Amqp091.hub(&message(Origin::Amqp091, &raw));
    assert_eq!(back.correlation_id, hub.correlation_id);
}

#[test]
fn nobody_says_for_the_broker_how_it_was_published() {
    let mut hub = full();
    hub.application.0.push((names::PUBLISHED_QOS.into(), Value::text("9")));
    let headers = headers(&Amqp091.encode(&hub, &message(Origin::Mqtt, b"")));
    assert_eq!(headers.get(names::PUBLISHED_QOS), Some(&Value::I8(2)));
    assert_eq!(headers.0.iter().filter(|(name, _)| &**name == names::PUBLISHED_QOS).count(), 1);
}

#[test]
fn a_message_of_ours_leaves_as_it_came() {
    let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Foreign(full())) };
    let ours = message(Origin::Amqp091, &[0x10, 0, 2]);
    assert!(matches!(outgoing(&dialects, &ours, None, 4096), Cow::Borrowed([0x10, 0, 2])));
    let counted = outgoing(&dialects, &ours, Some(4), 4096);
    assert_eq!(headers(&counted).get("x-delivery-count"), Some(&Value::I64(4)));
    let foreign = message(Origin::Mqtt, b"\x02block");
    let expected = Amqp091.encode(&full(), &foreign);
    assert_eq!(&*outgoing(&dialects, &foreign, None, 4096), expected);
    let counted = outgoing(&dialects, &foreign, Some(1), 4096);
    assert_eq!(headers(&counted).get("x-delivery-count"), Some(&Value::I64(1)));
    assert_eq!(headers(&counted).get("b"), Some(&Value::text("1")));
}

#[test]
fn converted_properties_fit_the_clients_frame() {
    let mut hub = full();
    hub.user_id = Some("u".repeat(255).into());
    let many = (0..30_000).map(|number| (number.to_string().into(), Value::text("some value")));
    hub.application.0.extend(many);
    let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Foreign(hub)) };
    let foreign = message(Origin::Mqtt, b"\0");
    for frame_max in [4096, 131_072, 1 << 24] {
        let raw = outgoing(&dialects, &foreign, Some(7), frame_max);
        assert!(raw.len() + frame::OVERHEAD + 12 <= frame_max.min(MOST + BESIDE), "{}", raw.len());
        assert!(raw.len() > frame_max.min(MOST) - 200);
        assert_eq!(headers(&raw).get("x-delivery-count"), Some(&Value::I64(7)));
    }
}

fn any_text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("\\PC{0,4}|a{254,258}".prop_map(Arc::<str>::from))
}

fn any_id() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop_oneof![
        any_text().prop_map(|text| text.map_or(Value::Void, |text| Value::text(&*text))),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|octets| Value::Bytes(octets.into())),
        any::<u32>().prop_map(Value::U32),
    ])
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(
        application in any_table(),
        texts in (any_text(), any_text(), any_text(), any_text()),
        (message_id, correlation_id) in (any_id(), any_id()),
        (timestamp, text, retain, published_qos) in any::<(Option<u64>, bool, bool, Option<u8>)>(),
    ) {
        let (reply_to, reply_topic, content_type, app_id) = texts;
        let hub = Hub {
            message_id,
            correlation_id,
            reply_to,
            reply_topic,
            content_type,
            app_id,
            timestamp,
            text,
            retain,
            published_qos,
            application,
            ..Hub::default()
        };
        let raw = Amqp091.encode(&hub, &message(Origin::Mqtt, b""));
        prop_assert!(parse(&raw, Limits::default()).is_ok());
        let back = Amqp091.hub(&message(Origin::Amqp091, &raw));
        prop_assert_eq!(
            (back.timestamp, back.text, back.retain, back.published_qos),
            (timestamp, text, retain, published_qos.map(|qos| qos.min(2)))
        );
        prop_assert_eq!(&back.reply_topic, &hub.reply_topic);
        let carried = hub.correlation_id.as_ref().and_then(octets);
        prop_assert_eq!(back.correlation_id.as_ref().and_then(octets), carried);
        let short = |text: &Option<Arc<str>>| text.clone().filter(|text| text.len() <= SHORT);
        prop_assert_eq!(&back.content_type, &short(&hub.content_type));
        prop_assert_eq!(&back.app_id, &short(&hub.app_id));
        prop_assert_eq!(&back.reply_to, &short(&hub.reply_to));
        let mut seen = HashSet::new();
        let first: Vec<_> = hub.application.0.into_iter().filter(|(name, _)| seen.insert(Arc::clone(name))).collect();
        let added = back.application.0.len() - first.len();
        prop_assert_eq!(format!("{:?}", &back.application.0[added..]), format!("{first:?}"));
    }

    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..80)) {
        let hub = Amqp091.hub(&message(Origin::Amqp091, &raw));
        let _ = Amqp091.encode(&hub, &message(Origin::Mqtt, b""));
    }
}
