//! The stand-in's part for those who speak MQTT: it knows who subscribed to what, and what is retained, and stores nothing else.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Mischief, Peer, StandIn};
use crate::mqtt::packet::{self, Envelope, Kind, Level, Packet, Publish};
use crate::trouble::Trouble;
use crate::wire::Malformed;

/// A reason code: the quota is exceeded.
const QUOTA_EXCEEDED: u8 = 0x97;

/// Connection and QoS of each subscription that a message goes to.
type Route = Rc<[(usize, u8)]>;

/// Subscriptions and retained messages.
#[derive(Default)]
pub(super) struct Topics {
    exact: HashMap<Vec<u8>, Vec<(usize, u8)>>,
    wild: Vec<(Vec<u8>, usize, u8)>,
    /// What has been found for a topic since somebody subscribed last.
    routes: HashMap<Vec<u8>, Route>,
    retained: HashMap<Vec<u8>, Vec<u8>>,
    /// A message that its successor is to overtake.
    late: Option<(Vec<u8>, Vec<u8>)>,
}

/// The level that a CONNECT at the front of `input` asks for.
pub(super) fn level_of(input: &[u8]) -> Option<Level> {
    let connect = packet::next(input, Level::V4).ok()??.0;
    let Packet::Other(Kind::Connect, payload) = connect else {
        return None;
    };
    Some(if packet::text(payload)?.1.first()? == &5 { Level::V5 } else { Level::V4 })
}

/// Whether a filter matches a topic (MQTT 5.0, 4.7).
fn matches(filter: &[u8], topic: &[u8]) -> bool {
    let mut levels = topic.split(|&octet| octet == b'/');
    for wanted in filter.split(|&octet| octet == b'/') {
        match (wanted, levels.next()) {
            (b"#", _) => return true,
            (b"+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

impl Topics {
    fn route(&mut self, topic: &[u8]) -> Route {
        if let Some(found) = self.routes.get(topic) {
            return Rc::clone(found);
        }
        let wild = self.wild.iter().filter(|(filter, ..)| matches(filter, topic)).map(|&(_, peer, qos)| (peer, qos));
        let found: Route = self.exact.get(topic).into_iter().flatten().copied().chain(wild).collect();
        self.routes.insert(topic.to_vec(), Rc::clone(&found));
        found
    }

    fn subscribe(&mut self, filter: &[u8], peer: usize, qos: u8) {
        self.routes.clear();
        if filter.iter().any(|octet| matches!(octet, b'+' | b'#')) {
            self.wild.push((filter.to_vec(), peer, qos));
        } else {
            self.exact.entry(filter.to_vec()).or_default().push((peer, qos));
        }
    }

    /// Drops the subscriptions of a connection, which were to `filters`.
    pub(super) fn forget(&mut self, peer: usize, filters: &[Vec<u8>]) {
        self.routes.clear();
        for filter in filters {
            if let Some(all) = self.exact.get_mut(filter) {
                all.retain(|subscription| subscription.0 != peer);
            }
        }
        if !filters.is_empty() {
            self.wild.retain(|subscription| subscription.1 != peer);
        }
    }
}

impl StandIn {
    /// Does what a client asks and returns how much of its input was whole.
    pub(super) fn hear_mqtt(
        &mut self,
        index: usize,
        peer: &mut Peer,
        level: Level,
        input: &[u8],
    ) -> Result<usize, Trouble> {
        let mut at = 0;
        while let Some((packet, used)) = packet::next(&input[at..], level)? {
            at += used;
            match packet {
                Packet::Publish(publish) => self.published(peer, level, &publish),
                Packet::Ack { kind: Kind::PubRec, id, .. } => peer.say(&packet::ack(Kind::PubRel, id)),
                Packet::Ack { kind: Kind::PubRel, id, .. } => peer.say(&packet::ack(Kind::PubComp, id)),
                Packet::Ack { .. } => {}
                Packet::Other(Kind::Connect, _) if level == Level::V5 => {
                    // Maximum QoS comes first, so that a client has to read on to find Receive Maximum: 1000.
                    peer.say(&[0x20, 8, 0, 0, 5, 0x24, 2, 0x21, 0x03, 0xE8]);
                }
                Packet::Other(Kind::Connect, _) => peer.say(&[0x20, 2, 0, 0]),
                Packet::Other(Kind::Subscribe, payload) => self.subscribed(index, peer, level, payload)?,
                Packet::Other(Kind::PingReq, _) => peer.say(&[0xD0, 0]),
                Packet::Other(_, _) => return Err(Trouble::Unexpected("a client takes leave".into())),
            }
        }
        Ok(at)
    }

    fn published(&mut self, peer: &mut Peer, level: Level, publish: &Publish<'_>) {
        let wrong = self.is_wrong();
        if wrong && self.mischief == Mischief::Refuse && publish.qos > 0 && level == Level::V5 {
            let [a, b] = publish.id.to_be_bytes();
            let kind = if publish.qos == 1 { Kind::PubAck } else { Kind::PubRec };
            return peer.say(&[(kind as u8) << 4, 3, a, b, QUOTA_EXCEEDED]);
        }
        match publish.qos {
            0 => {}
            1 => peer.say(&packet::ack(Kind::PubAck, publish.id)),
            _ => peer.say(&packet::ack(Kind::PubRec, publish.id)),
        }
        if publish.retain && publish.body.is_empty() {
            self.topics.retained.remove(publish.topic);
        } else if publish.retain {
            self.topics.retained.insert(publish.topic.to_vec(), publish.body.to_vec());
        }
        self.pass_on(publish, wrong);
    }

    fn pass_on(&mut self, publish: &Publish<'_>, wrong: bool) {
        let &Publish { topic, body, qos, .. } = publish;
        let route = self.topics.route(topic);
        match self.mischief {
            Mischief::Drop if wrong => return,
            Mischief::Repeat if wrong => self.send(&route, topic, body, qos),
            Mischief::Swap if wrong => {
                self.topics.late = Some((topic.to_vec(), body.to_vec()));
                return;
            }
            Mischief::Misroute if wrong => return self.send(&route, &[topic, b"x"].concat(), body, qos),
            Mischief::Flip if wrong => {
                let mut damaged = body.to_vec();
                damaged.iter_mut().take(1).for_each(|octet| *octet ^= 4);
                return self.send(&route, topic, &damaged, qos);
            }
            _ => {}
        }
        self.send(&route, topic, body, qos);
        if let Some((topic, body)) = self.topics.late.take() {
            let route = self.topics.route(&topic);
            self.send(&route, &topic, &body, qos);
        }
    }

    fn send(&mut self, route: &Route, topic: &[u8], body: &[u8], qos: u8) {
        for &(index, most) in route.iter() {
            if let Some(Some(peer)) = self.peers.get_mut(index) {
                peer.deliver(topic, body, qos.min(most), false);
                if self.dirty.last() != Some(&index) {
                    self.dirty.push(index);
                }
            }
        }
    }

    fn subscribed(&mut self, index: usize, peer: &mut Peer, level: Level, payload: &[u8]) -> Result<(), Trouble> {
        let short = Malformed("a SUBSCRIBE that ends early");
        let (id, mut rest) = payload.split_at_checked(2).ok_or(short)?;
        let mut answer = id.to_vec();
        if level == Level::V5 {
            rest = packet::properties(rest).ok_or(Malformed("a SUBSCRIBE without properties"))?.1;
            answer.push(0);
        }
        let mut replay = Vec::new();
        while let Some((filter, more)) = packet::text(rest) {
            let Some((&options, more)) = more.split_first() else {
                break;
            };
            rest = more;
            let qos = options & 3;
            answer.push(qos);
            self.topics.subscribe(filter, index, qos);
            peer.filters.push(filter.to_vec());
            let kept = self.topics.retained.iter().filter(|(topic, _)| matches(filter, topic));
            replay.extend(kept.map(|(topic, body)| (topic.clone(), body.clone(), qos)));
        }
        peer.say(&packet::with_head(0x90, &answer));
        for (topic, body, qos) in replay {
            if self.is_wrong() && self.mischief == Mischief::Drop {
                continue;
            }
            peer.deliver(&topic, &body, qos, true);
        }
        Ok(())
    }
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        self.link.output.extend_from_slice(bytes);
    }

    fn deliver(&mut self, topic: &[u8], body: &[u8], qos: u8, retain: bool) {
        let super::Speech::Mqtt(level) = self.speech else {
            return;
        };
        self.delivered = self.delivered % u16::MAX + 1;
        // Topics are those of the generator, which are texts.
        let topic = std::str::from_utf8(topic).unwrap_or_default();
        let envelope = Envelope::new(level, topic, body.len(), qos, retain);
        envelope.append(&mut self.link.output, self.delivered, |out| out.extend_from_slice(body));
    }
}
