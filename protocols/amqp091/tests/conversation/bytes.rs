//! What a client sends, encoded by hand so that a mistake in our own encoder cannot hide.

pub const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xCE);
    out
}

pub fn heartbeat() -> Vec<u8> {
    frame(8, 0, b"")
}

pub fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

pub fn method(channel: u16, class: u16, id: u16, arguments: &[&[u8]]) -> Vec<u8> {
    let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
    payload.extend(arguments.concat());
    frame(1, channel, &payload)
}

/// An argument table with integers.
pub fn table(values: &[(&str, i32)]) -> Vec<u8> {
    let one = |(name, value): &(&str, i32)| [short(name), vec![b'I'], value.to_be_bytes().to_vec()].concat();
    long(&values.iter().flat_map(one).collect::<Vec<_>>())
}

pub fn start_ok(capabilities: &[&str]) -> Vec<u8> {
    let flags: Vec<u8> = capabilities.iter().flat_map(|name| [short(name), vec![b't', 1]].concat()).collect();
    let properties = long(&[short("capabilities"), vec![b'F'], long(&flags)].concat());
    method(0, 10, 11, &[&properties, &short("PLAIN"), &long(b"\0guest\0guest"), &short("en_US")])
}

pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    method(0, 10, 31, &[&channel_max.to_be_bytes(), &frame_max.to_be_bytes(), &heartbeat.to_be_bytes()])
}

pub fn open_vhost(name: &str) -> Vec<u8> {
    method(0, 10, 40, &[&short(name), &short(""), &[0]])
}

pub fn close_connection() -> Vec<u8> {
    method(0, 10, 50, &[&200u16.to_be_bytes(), &short("bye"), &[0; 4]])
}

pub fn close_connection_ok() -> Vec<u8> {
    method(0, 10, 51, &[])
}

pub fn open(channel: u16) -> Vec<u8> {
    method(channel, 20, 10, &[&short("")])
}

pub fn close(channel: u16) -> Vec<u8> {
    method(channel, 20, 40, &[&200u16.to_be_bytes(), &short("bye"), &[0; 4]])
}

pub fn close_ok(channel: u16) -> Vec<u8> {
    method(channel, 20, 41, &[])
}

pub const DURABLE: u8 = 2;
pub const EXCLUSIVE: u8 = 4;
pub const AUTO_DELETE: u8 = 8;

pub fn declare_with(channel: u16, queue: &str, bits: u8, arguments: &[u8]) -> Vec<u8> {
    method(channel, 50, 10, &[&[0, 0], &short(queue), &[bits], arguments])
}

pub fn declare(channel: u16, queue: &str) -> Vec<u8> {
    declare_with(channel, queue, DURABLE, &long(b""))
}

pub fn passive(channel: u16, queue: &str) -> Vec<u8> {
    declare_with(channel, queue, 1, &long(b""))
}

pub fn delete(channel: u16, queue: &str) -> Vec<u8> {
    method(channel, 50, 40, &[&[0, 0], &short(queue), &[0]])
}

pub fn bind(channel: u16, queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    method(channel, 50, 20, &[&[0, 0], &short(queue), &short(exchange), &short(key), &[0], &long(b"")])
}

pub fn qos(channel: u16, count: u16, global: bool) -> Vec<u8> {
    method(channel, 60, 10, &[&[0; 4], &count.to_be_bytes(), &[u8::from(global)]])
}

pub const NO_ACK: u8 = 2;

pub fn consume(channel: u16, queue: &str, tag: &str, bits: u8) -> Vec<u8> {
    method(channel, 60, 20, &[&[0, 0], &short(queue), &short(tag), &[bits], &long(b"")])
}

pub fn cancel(channel: u16, tag: &str) -> Vec<u8> {
    method(channel, 60, 30, &[&short(tag), &[0]])
}

pub fn get(channel: u16, queue: &str, no_ack: bool) -> Vec<u8> {
    method(channel, 60, 70, &[&[0, 0], &short(queue), &[u8::from(no_ack)]])
}

pub fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, 60, 80, &[&tag.to_be_bytes(), &[u8::from(multiple)]])
}

pub fn nack(channel: u16, tag: u64, multiple: bool, requeue: bool) -> Vec<u8> {
    method(channel, 60, 120, &[&tag.to_be_bytes(), &[u8::from(multiple) | u8::from(requeue) << 1]])
}

pub fn recover(channel: u16) -> Vec<u8> {
    method(channel, 60, 110, &[&[1]])
}

pub fn confirm_select(channel: u16) -> Vec<u8> {
    method(channel, 85, 10, &[&[0]])
}

pub fn tx(channel: u16, id: u16) -> Vec<u8> {
    method(channel, 90, id, &[])
}

/// A message to publish.
#[derive(Clone)]
pub struct Post<'a> {
    pub exchange: &'a str,
    pub key: &'a str,
    pub body: Vec<u8>,
    pub mandatory: bool,
    pub persistent: bool,
    /// Header frame's flags and values, when not the plain ones.
    pub properties: Option<Vec<u8>>,
    /// Bytes of body in one frame.
    pub piece: usize,
}

pub fn to<'a>(key: &'a str, body: &str) -> Post<'a> {
    let body = body.as_bytes().to_vec();
    Post { exchange: "", key, body, mandatory: false, persistent: true, properties: None, piece: 4088 }
}

impl Post<'_> {
    pub fn transient(mut self) -> Self {
        self.persistent = false;
        self
    }

    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    pub fn on(&self, channel: u16) -> Vec<u8> {
        self.frames(channel).concat()
    }

    pub fn frames(&self, channel: u16) -> Vec<Vec<u8>> {
        let names = [short(self.exchange), short(self.key)].concat();
        let publish = method(channel, 60, 40, &[&[0, 0], &names, &[u8::from(self.mandatory)]]);
        let plain = vec![0x10, 0, 1 + u8::from(self.persistent)];
        let properties = self.properties.clone().unwrap_or(plain);
        let size = (self.body.len() as u64).to_be_bytes();
        let header = frame(2, channel, &[&[0, 60, 0, 0], &size[..], &properties].concat());
        let bodies = self.body.chunks(self.piece).map(|piece| frame(3, channel, piece));
        [publish, header].into_iter().chain(bodies).collect()
    }
}
