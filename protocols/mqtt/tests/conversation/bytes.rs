//! Packets as clients write them.

use portolan_mqtt::codec::Version::{self, V5, V31, V311};

pub fn short(value: u16) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub fn text(value: &str) -> Vec<u8> {
    blob(value.as_bytes())
}

pub fn blob(value: &[u8]) -> Vec<u8> {
    [&short(value.len() as u16)[..], value].concat()
}

pub fn var(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let more = if number >= 0x80 { 0x80 } else { 0 };
        out.push(number as u8 & 0x7f | more);
        number >>= 7;
        if number == 0 {
            return out;
        }
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &var(body.len()), body].concat()
}

fn block(version: Version, properties: &[u8]) -> Vec<u8> {
    match version {
        V5 => [&var(properties.len())[..], properties].concat(),
        _ => Vec::new(),
    }
}

/// Properties of 5.0.
pub mod props {
    use super::*;

    pub fn byte(id: u8, value: u8) -> Vec<u8> {
        vec![id, value]
    }
    pub fn two(id: u8, value: u16) -> Vec<u8> {
        [&[id][..], &short(value)].concat()
    }
    pub fn four(id: u8, value: u32) -> Vec<u8> {
        [&[id][..], &value.to_be_bytes()].concat()
    }
    pub fn words(id: u8, value: &str) -> Vec<u8> {
        [&[id][..], &text(value)].concat()
    }
    pub fn pair(name: &str, value: &str) -> Vec<u8> {
        [&[0x26][..], &text(name), &text(value)].concat()
    }
    pub fn message_expiry(seconds: u32) -> Vec<u8> {
        four(0x02, seconds)
    }
    pub fn identifier(number: usize) -> Vec<u8> {
        [&[0x0b][..], &var(number)].concat()
    }
    pub fn session_expiry(seconds: u32) -> Vec<u8> {
        four(0x11, seconds)
    }
    pub fn method(name: &str) -> Vec<u8> {
        words(0x15, name)
    }
    pub fn data(value: &[u8]) -> Vec<u8> {
        [&[0x16][..], &blob(value)].concat()
    }
    pub fn will_delay(seconds: u32) -> Vec<u8> {
        four(0x18, seconds)
    }
    pub fn receive_maximum(value: u16) -> Vec<u8> {
        two(0x21, value)
    }
    pub fn alias_maximum(value: u16) -> Vec<u8> {
        two(0x22, value)
    }
    pub fn alias(value: u16) -> Vec<u8> {
        two(0x23, value)
    }
    pub fn packet_maximum(value: u32) -> Vec<u8> {
        four(0x27, value)
    }
}

#[derive(Clone)]
pub struct Will {
    pub topic: &'static str,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<u8>,
}

pub fn will(topic: &'static str, payload: &str) -> Will {
    Will { topic, payload: payload.into(), qos: 0, retain: false, properties: Vec::new() }
}

/// CONNECT.
#[derive(Clone)]
pub struct Connect {
    pub version: Version,
    pub client: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub user: Option<&'static str>,
    pub password: Option<&'static str>,
    pub will: Option<Will>,
    pub properties: Vec<u8>,
}

/// A clean start, without anything else.
pub fn hello(version: Version, client: &str) -> Connect {
    Connect {
        version,
        client: client.into(),
        clean: true,
        keep_alive: 60,
        user: None,
        password: None,
        will: None,
        properties: Vec::new(),
    }
}

/// Goes on with what was there before and stays: for ever in 3.x, for an hour in 5.0.
pub fn lasting(version: Version, client: &str) -> Connect {
    let properties = if version == V5 { props::session_expiry(3600) } else { Vec::new() };
    Connect { clean: false, properties, ..hello(version, client) }
}

impl Connect {
    pub fn with(mut self, properties: &[u8]) -> Self {
        self.properties.extend_from_slice(properties);
        self
    }

    pub fn will(self, will: Will) -> Self {
        Self { will: Some(will), ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (name, level) = match self.version {
            V31 => ("MQIsdp", 3),
            V311 => ("MQTT", 4),
            V5 => ("MQTT", 5),
        };
        let mut flags = u8::from(self.clean) << 1;
        flags |= u8::from(self.user.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        let mut body = [&text(name)[..], &[level, flags], &short(self.keep_alive)].concat();
        body.extend(block(self.version, &self.properties));
        body.extend(text(&self.client));
        if let Some(will) = &self.will {
            body.extend(block(self.version, &will.properties));
            body.extend(text(will.topic));
            body.extend(blob(&will.payload));
        }
        body.extend(self.user.iter().flat_map(|user| text(user)));
        body.extend(self.password.iter().flat_map(|password| text(password)));
        packet(0x10, &body)
    }
}

pub const DUP: u8 = 8;
pub const RETAIN: u8 = 1;

/// PUBLISH; `flags` are DUP and RETAIN.
pub fn publish_with(version: Version, flags: u8, qos: u8, id: u16, topic: &str, payload: &[u8], p: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(short(id));
    }
    body.extend(block(version, p));
    body.extend_from_slice(payload);
    packet(0x30 | flags | qos << 1, &body)
}

pub fn publish(version: Version, qos: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    publish_with(version, 0, qos, id, topic, payload.as_bytes(), &[])
}

pub fn retained(version: Version, qos: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    publish_with(version, RETAIN, qos, id, topic, payload.as_bytes(), &[])
}

pub fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &short(id))
}
pub fn pubrec(id: u16) -> Vec<u8> {
    packet(0x50, &short(id))
}
pub fn pubrel(id: u16) -> Vec<u8> {
    packet(0x62, &short(id))
}
pub fn pubcomp(id: u16) -> Vec<u8> {
    packet(0x70, &short(id))
}
/// An acknowledgement with a reason; `first` is the packet's first byte.
pub fn reasoned(first: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(first, &[&short(id)[..], &[reason]].concat())
}

pub const NO_LOCAL: u8 = 4;
pub const RAP: u8 = 8;
pub const IF_NEW: u8 = 1 << 4;
pub const NEVER: u8 = 2 << 4;

/// SUBSCRIBE with filters and their options.
pub fn subscribe_with(version: Version, id: u16, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
    let mut body = [short(id), block(version, properties)].concat();
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn subscribe(version: Version, id: u16, filter: &str, options: u8) -> Vec<u8> {
    subscribe_with(version, id, &[(filter, options)], &[])
}

pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = [short(id), block(version, &[])].concat();
    body.extend(filters.iter().flat_map(|filter| text(filter)));
    packet(0xa2, &body)
}

pub const PING: &[u8] = &[0xc0, 0];
pub const BYE: &[u8] = &[0xe0, 0];

/// DISCONNECT of 5.0.
pub fn disconnect(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xe0, &[&[reason][..], &block(V5, properties)].concat())
}

/// AUTH.
pub fn auth(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xf0, &[&[reason][..], &block(V5, properties)].concat())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
