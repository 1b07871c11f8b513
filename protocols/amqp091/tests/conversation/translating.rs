//! Messages that came by another protocol.

use std::sync::Arc;

use portolan_amqp091::Amqp091;
use portolan_core::broker::Batch;
use portolan_core::dead_letter::Dialect;
use portolan_core::effect::Effects;
use portolan_core::hub::Hub;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::value::Table;

use crate::bytes::*;
use crate::rig::Rig;

/// A protocol whose properties are a content type and nothing else.
pub struct Foreign;

impl Dialect for Foreign {
    fn headers(&self, _: &Message) -> Table {
        Table::default()
    }
    fn dead_lettered(&self, message: &Message, _: &Table, _: &str, _: &[u8]) -> Message {
        message.clone()
    }
    fn expiration(&self, _: &Message) -> Option<Arc<str>> {
        None
    }
    fn hub(&self, message: &Message) -> Hub {
        let text = String::from_utf8_lossy(message.properties());
        Hub { content_type: Some(text.into()), ..Hub::default() }
    }
    fn encode(&self, _: &Hub, _: &Message) -> Vec<u8> {
        Vec::new()
    }
}

fn foreign() -> Message {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin: Origin::Mqtt,
        priority: 0,
        persistent: true,
        ttl: None,
    };
    Message::assemble(facts, b"amq.topic", b"plant.7", b"text/foreign", b"21.5")
}

fn publish(rig: &Rig) {
    let (mut batch, mut effects) = (Batch::default(), Effects::default());
    let vhost = rig.broker.vhost("/").unwrap();
    let route = vhost.route("amq.topic", &[b"plant.7"], &Table::default).unwrap();
    assert_eq!(route.targets.len(), 1);
    batch.add(&route.targets, foreign(), 0);
    rig.broker.publish(&mut batch, 1_000_000, &mut effects);
    rig.broker.carry_out(&mut effects, 1_000_000);
}

#[track_caller]
fn holds(bytes: &[u8], piece: &[u8]) {
    assert!(bytes.windows(piece.len()).any(|window| window == piece), "{bytes:?}");
}

#[test]
fn a_consumer_and_a_get_see_properties_of_0_9_1() {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    peer.say(&[declare(1, "q"), bind(1, "q", "amq.topic", "plant.*")].concat());
    let expected = Amqp091.encode(&Foreign.hub(&foreign()), &foreign());
    publish(&rig);
    peer.send(&get(1, "q", true));
    holds(&peer.raw_heard(), &expected);
    peer.say(&consume(1, "q", "c", NO_ACK));
    publish(&rig);
    holds(&peer.raw_heard(), &expected);
}

#[test]
fn a_foreign_message_dies_with_a_history() {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    let arguments = [
        &short("x-dead-letter-exchange")[..],
        b"S",
        &long(b""),
        &short("x-dead-letter-routing-key"),
        b"S",
        &long(b"dead"),
    ];
    peer.say(&[declare(1, "dead"), declare_with(1, "q", DURABLE, &long(&arguments.concat()))].concat());
    peer.say(&bind(1, "q", "amq.topic", "plant.*"));
    publish(&rig);
    assert_eq!(peer.say(&get(1, "q", false)), ["1 get-ok 1 0 21.5"]);
    peer.send(&[nack(1, 1, false, false), get(1, "dead", true)].concat());
    let heard = peer.raw_heard();
    for piece in [&b"x-death"[..], b"\x0ctext/foreign", b"routing-keys", b"plant.7", b"rejected", b"21.5"] {
        holds(&heard, piece);
    }
}
