//! Messages that came by another protocol.

use std::sync::Arc;

use portolan_core::broker::Batch;
use portolan_core::dead_letter::Dialect;
use portolan_core::effect::Effects;
use portolan_core::hub::Hub;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::value::{Table, Value};
use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// A protocol whose properties are a content type and one header.
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
        let application = Table(vec![("colour".into(), Value::text("red"))]);
        Hub { content_type: Some(text.into()), application, ..Hub::default() }
    }
    fn encode(&self, _: &Hub, _: &Message) -> Vec<u8> {
        Vec::new()
    }
}

/// A message of that protocol.
pub fn publish(rig: &Rig, key: &[u8], body: &[u8], persistent: bool) {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin: Origin::Amqp091,
        priority: 0,
        persistent,
        ttl: Some(60_000),
    };
    let message = Message::assemble(facts, b"amq.topic", key, b"text/foreign", body);
    let (mut batch, mut effects) = (Batch::default(), Effects::default());
    let vhost = rig.broker.vhost("/").unwrap();
    let route = vhost.route("amq.topic", &[key], &Table::default).unwrap();
    batch.add(&route.targets, message, 0);
    rig.broker.publish(&mut batch, rig.now, &mut effects);
    rig.broker.carry_out(&mut effects, rig.now);
}

#[test]
fn words_of_a_key_are_levels_of_a_topic() {
    let mut rig = Rig::new();
    let (five, three) = (rig.clean(V5, "five"), rig.clean(V311, "three"));
    rig.say(five, &subscribe(V5, 1, "plant/+/temp", 2));
    rig.say(three, &subscribe(V311, 1, "plant/#", 2));
    publish(&rig, b"plant.7.temp", b"21.5", true);
    publish(&rig, b"plant.8.temp", b"22", false);
    rig.serve();
    let all = "expiry=60 type=text/foreign colour:red";
    let expected = [format!("plant/7/temp q1 #1 {all} 21.5"), format!("plant/8/temp q0 {all} 22")];
    assert_eq!(rig.heard(five), expected);
    assert_eq!(rig.heard(three), ["plant/7/temp q1 #1 21.5", "plant/8/temp q0 22"]);
}

#[test]
fn they_wait_and_are_shared_like_others() {
    let mut rig = Rig::new();
    let client = rig.lasting(V5, "c");
    rig.say(client, &subscribe_with(V5, 1, &[("a", 1), ("$share/g/a", 1)], &[]));
    rig.cut(client);
    publish(&rig, b"a", b"x", true);
    let client = rig.dial(&lasting(V5, "c"));
    let mut heard = rig.heard(client);
    heard.remove(0);
    let all = "expiry=60 type=text/foreign colour:red";
    assert_eq!(heard, [format!("a q1 #1 {all} x"), format!("a q1 #65535 {all} x")]);
}
