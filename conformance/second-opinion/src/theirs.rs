//! What rumqttd's codec reads and writes.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use portolan_mqtt::codec::property::{Id, Value};
use portolan_mqtt::codec::{MAX_PACKET, Version};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    Connect, ConnectProperties, LastWill, LastWillProperties, Login, Packet, Protocol, Publish, PublishProperties,
};

use crate::facts::{Facts, name};

/// The packet, or why there is none: the error, or that it panicked.
pub fn read(bytes: &[u8], version: Version) -> Result<Packet, String> {
    let mut stream = BytesMut::from(bytes);
    let found = catch_unwind(AssertUnwindSafe(|| match version {
        Version::V31 | Version::V311 => V4.read_mut(&mut stream, MAX_PACKET),
        Version::V5 => V5.read_mut(&mut stream, MAX_PACKET),
    }));
    match found {
        Err(_) => Err("panicked".to_owned()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Ok(Ok(_)) if !stream.is_empty() => Err("left bytes over".to_owned()),
        Ok(Ok(packet)) => Ok(packet),
    }
}

/// The packet's bytes.
pub fn write(packet: Packet, version: Version) -> Result<Vec<u8>, String> {
    let mut out = BytesMut::new();
    let written = catch_unwind(AssertUnwindSafe(|| match version {
        Version::V31 | Version::V311 => V4.write(packet, &mut out),
        Version::V5 => V5.write(packet, &mut out),
    }));
    match written {
        Err(_) => Err("rumqttd panicked when it wrote".to_owned()),
        Ok(Err(error)) => Err(format!("rumqttd does not write it: {error:?}")),
        Ok(Ok(_)) => Ok(out.to_vec()),
    }
}

/// The facts of a packet.
pub fn facts(packet: &Packet) -> Facts {
    match packet {
        Packet::Connect(connect, properties, will, will_properties, login) => {
            opening(connect, properties.as_ref(), will.as_ref().zip(Some(will_properties.as_ref())), login.as_ref())
        }
        Packet::ConnAck(connack, _) => {
            // Only of 3.1.1: the reader of 5.0 does not know CONNACK.
            let mut facts = Facts::of("CONNACK");
            facts.say("session present", connack.session_present);
            facts.say("reason", name(connack.code));
            facts
        }
        Packet::Publish(publish, properties) => message(publish, properties.as_ref()),
        Packet::PubAck(ack, more) => {
            answer("PUBACK", ack.pkid, [ack.reason], more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::PubRec(ack, more) => {
            answer("PUBREC", ack.pkid, [ack.reason], more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::PubRel(ack, more) => {
            answer("PUBREL", ack.pkid, [ack.reason], more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::PubComp(ack, more) => {
            answer("PUBCOMP", ack.pkid, [ack.reason], more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::SubAck(ack, more) => {
            let reasons = ack.return_codes.iter();
            answer("SUBACK", ack.pkid, reasons, more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::UnsubAck(ack, more) => {
            let reasons = ack.reasons.iter();
            answer("UNSUBACK", ack.pkid, reasons, more.as_ref().map(|p| (&p.reason_string, &p.user_properties)))
        }
        Packet::Subscribe(subscribe, properties) => {
            let mut facts = Facts::of("SUBSCRIBE");
            facts.say("packet id", subscribe.pkid);
            let identifier = properties.as_ref().and_then(|p| p.id).map(|id| id as u32);
            facts.say("identifier", identifier);
            for one in &subscribe.filters {
                let options = (one.qos, one.nolocal, one.preserve_retain, name(&one.retain_forward_rule));
                facts.say("filter", (&one.path, options));
            }
            let mut block = Block::new(&mut facts, "");
            block.put(Id::SubscriptionIdentifier, identifier.map(Value::Var));
            block.pairs(properties.iter().flat_map(|p| &p.user_properties));
            facts
        }
        Packet::Unsubscribe(unsubscribe, properties) => {
            let mut facts = Facts::of("UNSUBSCRIBE");
            facts.say("packet id", unsubscribe.pkid);
            unsubscribe.filters.iter().for_each(|filter| facts.say("filter", filter));
            Block::new(&mut facts, "").pairs(properties.iter().flat_map(|p| &p.user_properties));
            facts
        }
        Packet::PingReq(_) => Facts::of("PINGREQ"),
        Packet::PingResp(_) => Facts::of("PINGRESP"),
        Packet::Disconnect(disconnect, properties) => {
            let mut facts = Facts::of("DISCONNECT");
            facts.say("reason", name(disconnect.reason_code));
            facts.say("session expiry", properties.as_ref().and_then(|p| p.session_expiry_interval));
            if let Some(p) = properties {
                let mut block = Block::new(&mut facts, "");
                block.put(Id::SessionExpiryInterval, p.session_expiry_interval.map(Value::Four));
                block.text(Id::ReasonString, &p.reason_string);
                block.text(Id::ServerReference, &p.server_reference);
                block.pairs(&p.user_properties);
            }
            facts
        }
    }
}

/// Properties on their way into the facts.
struct Block<'a> {
    facts: &'a mut Facts,
    whose: &'static str,
}

impl<'a> Block<'a> {
    fn new(facts: &'a mut Facts, whose: &'static str) -> Self {
        Self { facts, whose }
    }

    fn put(&mut self, id: Id, value: Option<Value<'_>>) {
        if let Some(value) = value {
            self.facts.property(self.whose, id, value);
        }
    }

    fn text(&mut self, id: Id, text: &Option<String>) {
        self.put(id, text.as_deref().map(Value::Text));
    }

    fn bytes(&mut self, id: Id, bytes: &Option<Bytes>) {
        self.put(id, bytes.as_deref().map(Value::Bytes));
    }

    fn pairs<'b>(&mut self, pairs: impl IntoIterator<Item = &'b (String, String)>) {
        for (name, text) in pairs {
            self.put(Id::UserProperty, Some(Value::Pair(name, text)));
        }
    }
}

/// Reason string and user properties.
type Explanation<'a> = (&'a Option<String>, &'a Vec<(String, String)>);

/// A packet that has a packet identifier, reasons and an explanation.
fn answer(
    packet: &str,
    packet_id: u16,
    reasons: impl IntoIterator<Item = impl Debug>,
    more: Option<Explanation<'_>>,
) -> Facts {
    let mut facts = Facts::of(packet);
    facts.say("packet id", packet_id);
    reasons.into_iter().for_each(|reason| facts.say("reason", name(reason)));
    if let Some((reason_string, user_properties)) = more {
        let mut block = Block::new(&mut facts, "");
        block.text(Id::ReasonString, reason_string);
        block.pairs(user_properties);
    }
    facts
}

fn opening(
    connect: &Connect,
    properties: Option<&ConnectProperties>,
    will: Option<(&LastWill, Option<&LastWillProperties>)>,
    login: Option<&Login>,
) -> Facts {
    let mut facts = Facts::of("CONNECT");
    facts.say("client id", &connect.client_id);
    facts.say("clean start", connect.clean_session);
    facts.say("keep alive", connect.keep_alive);
    facts.say("user name", login.map_or("", |login| &login.username));
    facts.say("password", login.map_or("", |login| &login.password).as_bytes());
    facts.say("session expiry", properties.and_then(|p| p.session_expiry_interval).unwrap_or(0));
    facts.say("receive maximum", properties.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX));
    facts.say("maximum packet size", properties.and_then(|p| p.max_packet_size));
    facts.say("topic alias maximum", properties.and_then(|p| p.topic_alias_max).unwrap_or(0));
    facts.say("response information", properties.and_then(|p| p.request_response_info) == Some(1));
    facts.say("problem information", properties.and_then(|p| p.request_problem_info) != Some(0));
    if let Some(p) = properties {
        let mut block = Block::new(&mut facts, "");
        block.put(Id::SessionExpiryInterval, p.session_expiry_interval.map(Value::Four));
        block.put(Id::ReceiveMaximum, p.receive_maximum.map(Value::Two));
        block.put(Id::MaximumPacketSize, p.max_packet_size.map(Value::Four));
        block.put(Id::TopicAliasMaximum, p.topic_alias_max.map(Value::Two));
        block.put(Id::RequestResponseInformation, p.request_response_info.map(Value::Byte));
        block.put(Id::RequestProblemInformation, p.request_problem_info.map(Value::Byte));
        block.text(Id::AuthenticationMethod, &p.authentication_method);
        block.bytes(Id::AuthenticationData, &p.authentication_data);
        block.pairs(&p.user_properties);
    }
    if let Some((will, properties)) = will {
        facts.say("will", (&will.topic[..], &will.message[..], will.qos, will.retain));
        facts.say("will delay", properties.and_then(|p| p.delay_interval).unwrap_or(0));
        facts.say("will text", properties.and_then(|p| p.payload_format_indicator) == Some(1));
        if let Some(p) = properties {
            let mut block = Block::new(&mut facts, "will ");
            block.put(Id::WillDelayInterval, p.delay_interval.map(Value::Four));
            block.put(Id::PayloadFormatIndicator, p.payload_format_indicator.map(Value::Byte));
            block.put(Id::MessageExpiryInterval, p.message_expiry_interval.map(Value::Four));
            block.text(Id::ContentType, &p.content_type);
            block.text(Id::ResponseTopic, &p.response_topic);
            block.bytes(Id::CorrelationData, &p.correlation_data);
            block.pairs(&p.user_properties);
        }
    }
    facts
}

/// DUP, QoS and packet identifier, which are private but written into this form.
pub fn delivery(publish: &Publish) -> (bool, u8, u16) {
    let inner = publish.serialize();
    match inner[..] {
        [first, high, low, ..] => (first & 8 != 0, first >> 1 & 3, u16::from_be_bytes([high, low])),
        _ => (false, 3, 0),
    }
}

fn message(publish: &Publish, properties: Option<&PublishProperties>) -> Facts {
    let (dup, qos, packet_id) = delivery(publish);
    let mut facts = Facts::of("PUBLISH");
    facts.say("delivery", (dup, qos, publish.retain, packet_id));
    facts.say("topic", &publish.topic[..]);
    facts.say("payload", &publish.payload[..]);
    let text = properties.and_then(|p| p.payload_format_indicator) == Some(1);
    let (expiry, alias) = properties.map_or((None, None), |p| (p.message_expiry_interval, p.topic_alias));
    facts.say("hop", (text, expiry, alias));
    if let Some(p) = properties {
        let mut block = Block::new(&mut facts, "");
        block.put(Id::PayloadFormatIndicator, p.payload_format_indicator.map(Value::Byte));
        block.put(Id::MessageExpiryInterval, expiry.map(Value::Four));
        block.put(Id::TopicAlias, alias.map(Value::Two));
        for id in &p.subscription_identifiers {
            block.put(Id::SubscriptionIdentifier, Some(Value::Var(*id as u32)));
        }
        block.text(Id::ContentType, &p.content_type);
        block.text(Id::ResponseTopic, &p.response_topic);
        block.bytes(Id::CorrelationData, &p.correlation_data);
        block.pairs(&p.user_properties);
    }
    facts
}
