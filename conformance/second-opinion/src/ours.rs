//! What Portolan's decoder reads from a packet.

use portolan_mqtt::codec::connect::{self, Connect};
use portolan_mqtt::codec::decode::{self, Ack, Packet, Publish};
use portolan_mqtt::codec::{AckKind, MAX_PACKET, Version, property, split};

use crate::facts::{Facts, name};

/// The facts of one packet, or why it is refused.
pub fn read(bytes: &[u8], version: Version) -> Result<Facts, String> {
    let frame = split(bytes, MAX_PACKET).map_err(|malformed| format!("{malformed:?}"))?.ok_or("not all of a packet")?;
    if frame.size != bytes.len() {
        return Err("more than a packet".to_owned());
    }
    if frame.is_connect() {
        let found = connect::decode(&frame).map_err(|refused| format!("{refused:?}"))?;
        return if found.version == version { Ok(connect(&found)) } else { Err("another version".to_owned()) };
    }
    Ok(match decode::decode(&frame, version).map_err(|malformed| format!("{malformed:?}"))? {
        Packet::Publish(found) => publish(&found),
        Packet::Ack(found) => ack(&found),
        Packet::Subscribe(found) => {
            let mut facts = Facts::of("SUBSCRIBE");
            facts.say("packet id", found.packet_id);
            facts.say("identifier", found.identifier);
            for (filter, options) in found.filters {
                let options =
                    (options.qos, options.no_local, options.retain_as_published, name(options.retain_handling));
                facts.say("filter", (filter, options));
            }
            with(facts, "", found.properties)
        }
        Packet::Unsubscribe(found) => {
            let mut facts = Facts::of("UNSUBSCRIBE");
            facts.say("packet id", found.packet_id);
            found.filters.for_each(|filter| facts.say("filter", filter));
            with(facts, "", found.properties)
        }
        Packet::Pingreq => Facts::of("PINGREQ"),
        Packet::Disconnect(found) => {
            let mut facts = Facts::of("DISCONNECT");
            facts.say("reason", name(found.reason));
            facts.say("session expiry", found.session_expiry);
            with(facts, "", found.properties)
        }
        Packet::Auth(_) => Facts::of("AUTH"),
    })
}

fn with(mut facts: Facts, whose: &str, block: &[u8]) -> Facts {
    for (id, value) in property::items(block) {
        facts.property(whose, id, value);
    }
    facts
}

fn connect(found: &Connect<'_>) -> Facts {
    let mut facts = Facts::of("CONNECT");
    facts.say("client id", found.client_id);
    facts.say("clean start", found.clean_start);
    facts.say("keep alive", found.keep_alive);
    // rumqttd cannot tell an empty name or password from none.
    facts.say("user name", found.user_name.unwrap_or_default());
    facts.say("password", found.password.unwrap_or_default());
    let properties = &found.properties;
    facts.say("session expiry", properties.session_expiry);
    facts.say("receive maximum", properties.receive_maximum);
    facts.say("maximum packet size", properties.maximum_packet_size);
    facts.say("topic alias maximum", properties.topic_alias_maximum);
    facts.say("response information", properties.request_response_information);
    facts.say("problem information", properties.request_problem_information);
    let mut facts = with(facts, "", properties.raw);
    if let Some(will) = &found.will {
        facts.say("will", (will.topic.as_bytes(), will.payload, will.qos, will.retain));
        facts.say("will delay", will.delay);
        facts.say("will text", will.text);
        facts = with(facts, "will ", will.properties);
    }
    facts
}

fn publish(found: &Publish<'_>) -> Facts {
    let mut facts = Facts::of("PUBLISH");
    facts.say("delivery", (found.dup, found.qos.bits(), found.retain, found.packet_id));
    facts.say("topic", found.topic.as_bytes());
    facts.say("payload", found.payload);
    facts.say("hop", (found.text, found.expiry, found.alias));
    with(facts, "", found.properties)
}

fn ack(found: &Ack<'_>) -> Facts {
    let mut facts = Facts::of(ack_name(found.kind));
    facts.say("packet id", found.packet_id);
    facts.say("reason", name(found.reason));
    with(facts, "", found.properties)
}

/// The packet's name.
pub fn ack_name(kind: AckKind) -> &'static str {
    match kind {
        AckKind::Puback => "PUBACK",
        AckKind::Pubrec => "PUBREC",
        AckKind::Pubrel => "PUBREL",
        AckKind::Pubcomp => "PUBCOMP",
    }
}
