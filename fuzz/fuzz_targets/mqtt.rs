//! The MQTT packet decoder in all versions: what it takes keeps its promises, and the encoders write what it reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_mqtt::codec::decode::{self, Packet, Publish};
use portolan_mqtt::codec::encode::{self, Delivery, Explanation, Peer};
use portolan_mqtt::codec::{Connect, Frame, Qos, Version, connect, property, split};
use portolan_mqtt::topic;

fuzz_target!(|input: &[u8]| {
    for version in [Version::V31, Version::V311, Version::V5] {
        for max_packet in [16, 1 << 16] {
            let mut rest = input;
            while let Ok(Some(frame)) = split(rest, max_packet) {
                assert!(frame.size >= 2 && frame.size <= max_packet && frame.body.len() < frame.size);
                packet(&frame, version);
                rest = &rest[frame.size..];
            }
        }
    }
});

fn packet(frame: &Frame<'_>, version: Version) {
    if let Ok(connect) = connect::decode(frame) {
        opened(&connect);
    }
    match decode::decode(frame, version) {
        Ok(Packet::Publish(publish)) => published(&publish, version),
        Ok(Packet::Ack(ack)) => {
            assert_ne!(ack.packet_id, 0);
            let mut out = Vec::new();
            let peer = Peer::new(version);
            assert!(encode::ack(&mut out, peer, ack.kind, ack.packet_id, ack.reason, Explanation::NONE));
            let again = split(&out, out.len()).expect("ours").expect("whole");
            let Ok(Packet::Ack(again)) = decode::decode(&again, version) else { panic!("ours") };
            assert_eq!((again.kind, again.packet_id, again.reason), (ack.kind, ack.packet_id, ack.reason));
        }
        Ok(Packet::Subscribe(subscribe)) => {
            assert!(subscribe.count > 0 && subscribe.packet_id != 0 && subscribe.identifier != Some(0));
            assert_eq!(subscribe.filters.clone().count(), subscribe.count);
            for (filter, _) in subscribe.filters {
                assert!(topic::check_filter(filter).is_ok());
                let _ = topic::Subscription::parse(filter);
            }
        }
        Ok(Packet::Unsubscribe(unsubscribe)) => {
            assert!(unsubscribe.count > 0 && unsubscribe.packet_id != 0);
            assert_eq!(unsubscribe.filters.count(), unsubscribe.count);
        }
        Ok(Packet::Pingreq | Packet::Disconnect(_) | Packet::Auth(_)) => {}
        Err(malformed) => assert!(malformed.reason.is_error() && !malformed.text.is_empty()),
    }
}

fn opened(connect: &Connect<'_>) {
    assert!(connect.version == Version::V5 || connect.password.is_none() || connect.user_name.is_some());
    if let Some(will) = &connect.will {
        assert!(topic::is_name(will.topic));
        let _ = will.payload_is_as_declared();
    }
}

fn published(publish: &Publish<'_>, version: Version) {
    assert_eq!(publish.packet_id == 0, publish.qos == Qos::AtMostOnce);
    assert!(topic::is_name(publish.topic) || (publish.topic.is_empty() && publish.alias.is_some()));
    let _ = publish.payload_is_as_declared();
    let properties = property::travelling(publish.properties);
    let delivery = Delivery {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        packet_id: publish.packet_id,
        topic: publish.topic,
        properties: &properties,
        alias: publish.alias,
        expiry: publish.expiry,
        identifiers: &[],
        payload: publish.payload,
    };
    let mut out = Vec::new();
    assert!(encode::publish(&mut out, version, &delivery));
    assert_eq!(delivery.size(version), Some(out.len()));
    let again = split(&out, out.len()).expect("ours").expect("whole");
    let again = decode::publish(&again, version).expect("ours");
    assert_eq!((again.topic, again.payload, again.alias), (publish.topic, publish.payload, publish.alias));
    assert_eq!(*property::travelling(again.properties), *properties);
    if !publish.topic.is_empty() {
        let (mut key, mut back) = (Vec::new(), String::new());
        topic::append_key(publish.topic, &mut key);
        assert_eq!(topic::append_topic(&key, &mut back), topic::Fit::Exact);
        assert_eq!(back, publish.topic);
    }
}
