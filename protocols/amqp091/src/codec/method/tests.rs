//! Methods as clients send them, and what RabbitMQ says to those that are none.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{AMQPClass, basic, connection, exchange, parse_class, queue};
use portolan_core::value::Value;
use proptest::prelude::*;

use super::shape::Field;
use super::*;
use crate::codec::Limits;
use crate::codec::table::{self, tests::any_table};

#[track_caller]
fn reads(payload: &[u8], expected: Method<'_>) {
    assert_eq!(decode(payload, Limits::default()), Ok(expected));
}

#[track_caller]
fn refused(payload: &[u8], code: u16, text: &str, class_and_method: (u16, u16)) {
    let error = decode(payload, Limits::default()).unwrap_err();
    assert_eq!((error.fault.reply_code(), error.fault.reply_text().as_str()), (code, text));
    assert_eq!((error.class, error.method), class_and_method);
}

#[test]
fn connection_methods() {
    reads(
        b"\0\x0a\0\x0b\0\0\0\x04\x01at\x01\x05PLAIN\0\0\0\x02\0u\x05en_US",
        Method::StartOk {
            client_properties: Table(vec![("a".into(), Value::Bool(true))]),
            mechanism: "PLAIN".into(),
            response: (*b"\0u").into(),
            locale: "en_US".into(),
        },
    );
    reads(b"\0\x0a\0\x15\0\0\0\x01!", Method::SecureOk { response: (*b"!").into() });
    reads(
        b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c",
        Method::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
    );
    // pika, bunny and rabbitmq-c set the reserved bit.
    reads(b"\0\x0a\0\x28\x01/\0\x01", Method::ConnectionOpen { vhost: "/".into() });
    let close = Close { reply_code: 200, reply_text: "bye".into(), class: 0, method: 0 };
    reads(b"\0\x0a\0\x32\0\xc8\x03bye\0\0\0\0", Method::ConnectionClose(close));
    reads(b"\0\x0a\0\x33", Method::ConnectionCloseOk);
    reads(b"\0\x0a\0\x3c\x01r", Method::Blocked { reason: "r".into() });
    reads(b"\0\x0a\0\x3d", Method::Unblocked);
    reads(b"\0\x0a\0\x46\0\0\0\x01s\x01r", Method::UpdateSecret { new_secret: (*b"s").into(), reason: "r".into() });
}

#[test]
fn channel_access_confirm_and_tx_methods() {
    // aiormq sends "0" here.
    reads(b"\0\x14\0\x0a\x010", Method::ChannelOpen);
    reads(b"\0\x14\0\x14\x01", Method::ChannelFlow { active: true });
    reads(b"\0\x14\0\x15\0", Method::ChannelFlowOk { active: false });
    let close = Close { reply_code: 0, reply_text: "".into(), class: 60, method: 40 };
    reads(b"\0\x14\0\x28\0\0\0\0\x3c\0\x28", Method::ChannelClose(close));
    reads(b"\0\x14\0\x29", Method::ChannelCloseOk);
    reads(b"\0\x1e\0\x0a\x05/data\x1f", Method::AccessRequest);
    reads(b"\0\x55\0\x0a\x01", Method::ConfirmSelect { no_wait: true });
    reads(b"\0\x5a\0\x0a", Method::TxSelect);
    reads(b"\0\x5a\0\x14", Method::TxCommit);
    reads(b"\0\x5a\0\x1e", Method::TxRollback);
}

#[test]
fn exchange_methods() {
    let declare = ExchangeDeclare {
        exchange: "x".into(),
        kind: "topic".into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: true,
        no_wait: false,
        arguments: Table::default(),
    };
    reads(b"\0\x28\0\x0a\0\0\x01x\x05topic\x0a\0\0\0\0", Method::ExchangeDeclare(declare));
    let delete = Method::ExchangeDelete { exchange: "x".into(), if_unused: true, no_wait: false };
    reads(b"\0\x28\0\x14\0\0\x01x\x01", delete);
    let binding = ExchangeBinding {
        destination: "d".into(),
        source: "s".into(),
        routing_key: "k".into(),
        no_wait: true,
        arguments: Table::default(),
    };
    reads(b"\0\x28\0\x1e\0\0\x01d\x01s\x01k\x01\0\0\0\0", Method::ExchangeBind(binding.clone()));
    reads(b"\0\x28\0\x28\0\0\x01d\x01s\x01k\x01\0\0\0\0", Method::ExchangeUnbind(binding));
}

#[test]
fn queue_methods() {
    let declare = QueueDeclare {
        queue: "q".into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: true,
        no_wait: true,
        // In order and with both of the same name.
        arguments: Table(vec![("z".into(), Value::I32(1)), ("a".into(), Value::Void), ("z".into(), Value::U8(2))]),
    };
    reads(b"\0\x32\0\x0a\0\0\x01q\x1a\0\0\0\x0e\x01zI\0\0\0\x01\x01aV\x01zB\x02", Method::QueueDeclare(declare));
    let binding = QueueBinding {
        queue: "q".into(),
        exchange: "x".into(),
        routing_key: "k".into(),
        no_wait: false,
        arguments: Table::default(),
    };
    reads(b"\0\x32\0\x14\0\0\x01q\x01x\x01k\0\0\0\0\0", Method::QueueBind(binding.clone()));
    reads(b"\0\x32\0\x32\0\0\x01q\x01x\x01k\0\0\0\0", Method::QueueUnbind(binding));
    reads(b"\0\x32\0\x1e\0\0\x01q\x01", Method::QueuePurge { queue: "q".into(), no_wait: true });
    reads(
        b"\0\x32\0\x28\0\0\x01q\x02",
        Method::QueueDelete { queue: "q".into(), if_unused: false, if_empty: true, no_wait: false },
    );
}

#[test]
fn basic_methods() {
    reads(b"\0\x3c\0\x0a\0\0\0\x09\0\x05\x01", Method::Qos { prefetch_size: 9, prefetch_count: 5, global: true });
    let consume = Consume {
        queue: "q".into(),
        consumer_tag: "t".into(),
        no_local: true,
        no_ack: false,
        exclusive: true,
        no_wait: false,
        arguments: Table(vec![("x-priority".into(), Value::I32(1))]),
    };
    reads(b"\0\x3c\0\x14\0\0\x01q\x01t\x05\0\0\0\x10\x0ax-priorityI\0\0\0\x01", Method::Consume(consume));
    reads(b"\0\x3c\0\x1e\x01t\x01", Method::Cancel { consumer_tag: "t".into(), no_wait: true });
    reads(b"\0\x3c\0\x1f\x01t", Method::CancelOk { consumer_tag: "t".into() });
    reads(b"\0\x3c\0\x6e\x01", Method::Recover { requeue: true });
    reads(b"\0\x3c\0\x64\x01", Method::RecoverAsync { requeue: true });
    let one = Acknowledgement { delivery_tag: 1, multiple: false, requeue: false };
    reads(b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0", Method::Ack(one));
    reads(b"\0\x3c\0\x78\0\0\0\0\0\0\0\x01\0", Method::Nack(one));
    reads(b"\0\x3c\0\x5a\0\0\0\0\0\0\0\x01\x01", Method::Reject(Acknowledgement { requeue: true, ..one }));
    reads(b"\0\x3c\0\x46\0\0\x01q\x01", Method::Get(Get { queue: "q", no_ack: true }));
    let publish = b"\0\x3c\0\x28\0\0\x01x\x02\xff\xfe\x01";
    reads(publish, Method::Publish(hot::publish(&publish[4..]).unwrap()));
}

#[test]
fn what_only_a_server_sends() {
    reads(b"\0\x32\0\x0b\x01q\0\0\0\0\0\0\0\0", Method::ServerOnly { class: 50, method: 11 });
    reads(b"\0\x0a\0\x29\0", Method::ServerOnly { class: 10, method: 41 });
    reads(b"\0\x3c\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0", Method::StrayContent { class: 60, method: 60 });
    reads(b"\0\x3c\0\x32\0\0\0\0\0", Method::StrayContent { class: 60, method: 50 });
}

#[test]
fn refusals_have_the_texts_of_rabbitmq() {
    refused(b"\0\x32\0\x0a\0", 501, "FRAME_ERROR - cannot decode <<0>>", (50, 10));
    refused(b"\0\x3c\0\xc8", 501, "FRAME_ERROR - cannot decode <<>>", (60, 200));
    refused(b"\0\x3c\0\x28ab", 501, r#"FRAME_ERROR - cannot decode <<"ab">>"#, (60, 40));
    refused(
        b"\0\x32\0\x0a\0\0\x01a\xff\0\0\0\0\0",
        501,
        "FRAME_ERROR - cannot decode <<0,0,1,97,255,0,0,0,0,0>>",
        (50, 10),
    );
    refused(b"\0\x5a\0\x0a\x01", 501, "FRAME_ERROR - cannot decode <<1>>", (90, 10));
    refused(b"\0\x32\0\x0a\0\0\x01\xff\0\0\0\0\0", 501, "FRAME_ERROR - Malformed UTF-8 in shortstr", (0, 0));
    refused(b"\0\x3c\0\x46\0\0\x01\xff\0", 501, "FRAME_ERROR - Malformed UTF-8 in shortstr", (0, 0));
    refused(b"\0\x0a\0", 501, "FRAME_ERROR - type 1, all octets = <<0,10,0>>: unknown_frame", (0, 0));
}

#[test]
fn refusals_where_rabbitmq_only_hangs_up() {
    refused(b"\0\x63\0\x01", 503, "COMMAND_INVALID - unknown class 99", (99, 1));
    refused(
        b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x03\x01aZ",
        502,
        "SYNTAX_ERROR - unknown field type 90 in a table",
        (50, 10),
    );
    refused(b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x04\x01aI\0", 502, "SYNTAX_ERROR - a table ends within a value", (50, 10));
}

#[test]
fn deep_nesting_is_refused_before_amq_protocol_sees_it() {
    let nested = |levels| {
        let table = (1..levels).fold(Table::default(), |inner, _| Table(vec![("k".into(), Value::Table(inner))]));
        let mut payload = b"\0\x0a\0\x0b".to_vec();
        table::put(&mut payload, &table);
        payload.extend(b"\x05PLAIN\0\0\0\0\x05en_US");
        payload
    };
    refused(&nested(33), 502, "SYNTAX_ERROR - tables nested deeper than 32 levels", (10, 11));
    assert!(decode(&nested(32), Limits::default()).is_ok());
    let deepest = Limits { depth: usize::MAX, ..Limits::default() };
    assert!(decode(&nested(Limits::DEEPEST), deepest).is_ok());
    let error = decode(&nested(Limits::DEEPEST + 1), deepest).unwrap_err();
    assert_eq!(error.fault, Malformed::TooDeep { max: Limits::DEEPEST });
}

#[test]
fn three_thousand_levels_are_an_error() {
    let mut tables = Vec::new();
    for _ in 0..3_000 {
        let length = u32::try_from(tables.len()).unwrap().to_be_bytes();
        tables = [b"\x01kF", &length[..], &tables].concat();
    }
    let length = u32::try_from(tables.len()).unwrap().to_be_bytes();
    let payload = [b"\0\x0a\0\x0b", &length[..], &tables, b"\x05PLAIN\0\0\0\0\x05en_US"].concat();
    refused(&payload, 502, "SYNTAX_ERROR - tables nested deeper than 32 levels", (10, 11));
}

/// Every method there is, and arguments of its form.
fn any_payload() -> impl Strategy<Value = (Vec<u8>, u16, u16)> {
    let known: Vec<(u16, u16)> = (0..100)
        .flat_map(|class| (0..130).map(move |method| (class, method)))
        .filter(|(c, m)| shape::of(*c, *m).is_some())
        .collect();
    let octets = prop::collection::vec(any::<u8>(), 80);
    (prop::sample::select(known), any_table(), octets, "[a-zé]{0,9}").prop_map(
        |((class, method), table, octets, text)| {
            let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
            let mut octets = octets.into_iter();
            for field in shape::of(class, method).unwrap() {
                match field {
                    Field::Octet => payload.extend(octets.by_ref().take(1)),
                    Field::Short => payload.extend(octets.by_ref().take(2)),
                    Field::Long => payload.extend(octets.by_ref().take(4)),
                    Field::LongLong => payload.extend(octets.by_ref().take(8)),
                    Field::Text => {
                        payload.push(u8::try_from(text.len()).unwrap());
                        payload.extend(text.bytes());
                    }
                    Field::Name => {
                        payload.push(3);
                        payload.extend(octets.by_ref().take(3));
                    }
                    Field::Bytes => {
                        payload.extend([0, 0, 0, 5]);
                        payload.extend(octets.by_ref().take(5));
                    }
                    Field::Table => table::put(&mut payload, &table),
                }
            }
            (payload, class, method)
        },
    )
}

/// What `amq-protocol` writes for a client's method, without the frame around it.
fn written_by_amq_protocol(class: AMQPClass) -> Vec<u8> {
    let bytes = gen_frame(&AMQPFrame::Method(1, class))(WriteContext::from(Vec::new())).unwrap().write;
    bytes[7..bytes.len() - 1].to_vec()
}

#[test]
fn what_amq_protocol_writes_reads_back() {
    let start = connection::StartOk { mechanism: "PLAIN".into(), locale: "en_US".into(), ..Default::default() };
    let start = written_by_amq_protocol(AMQPClass::Connection(connection::AMQPMethod::StartOk(start)));
    assert!(
        matches!(decode(&start, Limits::default()), Ok(Method::StartOk { mechanism, .. }) if &*mechanism == "PLAIN")
    );

    let publish = basic::Publish { exchange: "x".into(), routing_key: "k".into(), mandatory: true, immediate: false };
    let publish = written_by_amq_protocol(AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let read = hot::publish(&publish[4..]).unwrap();
    assert_eq!((read.exchange(), read.routing_key(), read.mandatory), (&b"x"[..], &b"k"[..], true));

    let declare = queue::Declare { queue: "q".into(), exclusive: true, nowait: true, ..Default::default() };
    let declare = written_by_amq_protocol(AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    let Ok(Method::QueueDeclare(read)) = decode(&declare, Limits::default()) else { panic!("{declare:?}") };
    assert_eq!((&*read.queue, read.exclusive, read.no_wait, read.durable), ("q", true, true, false));

    let declare =
        exchange::Declare { exchange: "x".into(), kind: "direct".into(), internal: true, ..Default::default() };
    let declare = written_by_amq_protocol(AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)));
    let Ok(Method::ExchangeDeclare(read)) = decode(&declare, Limits::default()) else { panic!("{declare:?}") };
    assert_eq!((&*read.kind, read.internal, read.durable), ("direct", true, false));
}

proptest! {
    #[test]
    fn every_method_of_the_right_form_is_read((payload, class, method) in any_payload()) {
        let read = decode(&payload, Limits::default());
        prop_assert!(read.is_ok(), "{:?}", read);
        if let Ok(Method::ServerOnly { class: c, method: m } | Method::StrayContent { class: c, method: m }) = read {
            prop_assert_eq!((c, m), (class, method));
        }
        for cut in 4..payload.len() {
            let error = decode(&payload[..cut], Limits::default()).unwrap_err();
            prop_assert_eq!((error.fault.reply_code(), error.class, error.method), (501, class, method));
        }
        let longer = [&payload[..], &[0]].concat();
        prop_assert!(decode(&longer, Limits::default()).is_err());
    }

    #[test]
    fn the_walk_finds_what_amq_protocol_finds((payload, _, _) in any_payload(), at: prop::sample::Index, octet: u8) {
        let mut payload = payload;
        let at = at.index(payload.len());
        payload[at] = octet;
        if let Ok(read) = decode(&payload, Limits::default()) {
            let names_are_bytes = matches!(read, Method::Publish(_) | Method::StrayContent { .. });
            let theirs = parse_class(&payload[..]);
            prop_assert!(names_are_bytes || matches!(theirs, Ok(([], _))), "{:?} {:?}", read, theirs);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        class in prop::sample::select(vec![10u8, 20, 30, 40, 50, 60, 85, 90, 0]),
        method in 0u8..130,
        args in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let payload = [&[0, class, 0, method], &args[..]].concat();
        let _ = decode(&payload, Limits::default());
        let _ = decode(&args, Limits::default());
    }
}
