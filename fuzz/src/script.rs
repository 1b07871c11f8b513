//! A fuzzer's bytes as a conversation: mostly well-formed requests in an order that nobody would choose.

use crate::feed::Feed;
use crate::peer::World;

const NAMES: [&str; 6] = ["q", "r", "dead", "", "amq.gen", "x"];
const EXCHANGES: [&str; 7] = ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers", "x", "y"];
const KEYS: [&str; 6] = ["q", "r", "a.b", "a.*", "#", ""];
const KINDS: [&str; 5] = ["direct", "fanout", "topic", "headers", "odd"];
const TAGS: [&str; 3] = ["", "one", "two"];
/// Arguments with small numbers.
const NUMBERS: [&str; 8] = [
    "x-max-length",
    "x-max-length-bytes",
    "x-message-ttl",
    "x-expires",
    "x-max-priority",
    "x-delivery-limit",
    "x-priority",
    "n",
];
/// Arguments with words.
const WORDS: [(&str, &str); 9] = [
    ("x-overflow", "reject-publish"),
    ("x-overflow", "reject-publish-dlx"),
    ("x-dead-letter-exchange", ""),
    ("x-dead-letter-exchange", "x"),
    ("x-dead-letter-routing-key", "dead"),
    ("x-queue-type", "quorum"),
    ("alternate-exchange", "y"),
    ("x-match", "any"),
    ("amq.rabbitmq.reply-to", ""),
];

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat()
}

fn method(channel: u16, class: u16, id: u16, arguments: &[&[u8]]) -> Vec<u8> {
    let ids = [class.to_be_bytes(), id.to_be_bytes()].concat();
    frame(1, channel, &[ids, arguments.concat()].concat())
}

fn table(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..feed.byte() % 4 {
        match feed.byte() % 5 {
            0 | 1 => {
                out.extend(short(feed.pick(&NUMBERS)));
                out.push(b'I');
                out.extend(i32::from(feed.byte() as i8).to_be_bytes());
            }
            2 | 3 => {
                let (name, word) = feed.pick(&WORDS);
                out.extend([short(name), vec![b'S'], long(word.as_bytes())].concat());
            }
            _ => out.extend([short("x-single-active-consumer"), vec![b't', 1]].concat()),
        }
    }
    long(&out)
}

/// Flags and values of a content header.
fn properties(feed: &mut Feed<'_>) -> Vec<u8> {
    match feed.byte() % 8 {
        0..=2 => vec![0x10, 0, 1 + feed.byte() % 2],
        3 => [vec![0x01, 0], short(feed.pick(&["0", "5", "100", "-1", "x"]))].concat(),
        4 => vec![0x18, 0, 2, feed.byte()],
        5 => {
            let key = long(feed.pick(&KEYS).as_bytes());
            let list = long(&[&b"S"[..], &key].concat());
            let name = feed.pick(&["CC", "BCC", "x-death", "n"]);
            [vec![0x20, 0], long(&[short(name), vec![b'A'], list].concat())].concat()
        }
        6 => [vec![0x02, 0], short("amq.rabbitmq.reply-to")].concat(),
        _ => {
            let count = usize::from(feed.byte() % 20);
            feed.bytes(count).to_vec()
        }
    }
}

fn publish(channel: u16, feed: &mut Feed<'_>) -> Vec<u8> {
    let (exchange, key) = (feed.pick(&EXCHANGES), feed.pick(&KEYS));
    let mut out = method(channel, 60, 40, &[&[0, 0], &short(exchange), &short(key), &[feed.byte() % 4]]);
    let size = usize::from(feed.byte()) * usize::from(feed.pick(&[1u8, 1, 1, 100]));
    let announced = if feed.byte() == 0xFF { size + 1 } else { size };
    let properties = properties(feed);
    out.extend(frame(2, channel, &[&[0, 60, 0, 0], &(announced as u64).to_be_bytes()[..], &properties].concat()));
    let piece = usize::from(feed.pick(&[4088u16, 100, 7]));
    vec![b'b'; size].chunks(piece).for_each(|body| out.extend(frame(3, channel, body)));
    out
}

/// One request.
fn request(feed: &mut Feed<'_>) -> Vec<u8> {
    let channel = u16::from(feed.byte() % 4);
    let bits = |feed: &mut Feed<'_>| [feed.byte() % 32];
    match feed.byte() % 28 {
        0 | 1 => method(channel, 20, 10, &[&short("")]),
        2 => method(channel, 20, 40, &[&[0, 200], &short("bye"), &[0; 4]]),
        3 => method(channel, 20, 41, &[]),
        4 | 5 => {
            let (name, bits) = (short(feed.pick(&NAMES)), bits(feed));
            method(channel, 50, 10, &[&[0, 0], &name, &bits, &table(feed)])
        }
        6 => {
            let (name, kind, bits) = (short(feed.pick(&EXCHANGES)), short(feed.pick(&KINDS)), bits(feed));
            method(channel, 40, 10, &[&[0, 0], &name, &kind, &bits, &table(feed)])
        }
        7 | 8 => {
            let (queue, exchange) = (short(feed.pick(&NAMES)), short(feed.pick(&EXCHANGES)));
            let key = short(feed.pick(&KEYS));
            method(channel, 50, 20, &[&[0, 0], &queue, &exchange, &key, &[feed.byte() % 2], &table(feed)])
        }
        9 => {
            let (to, from, key) = (short(feed.pick(&EXCHANGES)), short(feed.pick(&EXCHANGES)), short(feed.pick(&KEYS)));
            let id = feed.pick(&[30u16, 40]);
            method(channel, 40, id, &[&[0, 0], &to, &from, &key, &[0], &table(feed)])
        }
        10 => method(channel, 50, 40, &[&[0, 0], &short(feed.pick(&NAMES)), &[feed.byte() % 8]]),
        11 => method(channel, 50, 30, &[&[0, 0], &short(feed.pick(&NAMES)), &[feed.byte() % 2]]),
        12 => method(channel, 60, 10, &[&[0; 4], &[0, feed.byte() % 4], &[feed.byte() % 2]]),
        13 | 14 => {
            let queue = feed.pick(&["q", "r", "dead", "", "amq.rabbitmq.reply-to"]);
            let (tag, bits) = (short(feed.pick(&TAGS)), [feed.byte() % 16]);
            method(channel, 60, 20, &[&[0, 0], &short(queue), &tag, &bits, &table(feed)])
        }
        15 => method(channel, 60, 30, &[&short(feed.pick(&TAGS)), &[feed.byte() % 2]]),
        16 => method(channel, 60, 70, &[&[0, 0], &short(feed.pick(&NAMES)), &[feed.byte() % 2]]),
        17 | 18 => method(channel, 60, 80, &[&u64::from(feed.byte() % 8).to_be_bytes(), &[feed.byte() % 2]]),
        19 => method(channel, 60, 120, &[&u64::from(feed.byte() % 8).to_be_bytes(), &[feed.byte() % 4]]),
        20 => method(channel, 60, feed.pick(&[100u16, 110]), &[&[feed.byte() % 2]]),
        21 => method(channel, 85, 10, &[&[feed.byte() % 2]]),
        22 => method(channel, 90, feed.pick(&[10u16, 20, 30]), &[]),
        23 => {
            let count = usize::from(feed.byte() % 64);
            frame(feed.pick(&[1u8, 2, 3, 8, 9]), channel, feed.bytes(count))
        }
        _ => publish(channel, feed),
    }
}

/// Plays a script: three connections, time, and reads from the journal.
pub fn play(input: &[u8]) {
    let mut feed = Feed(input);
    let mut world = World::default();
    let mut peers: Vec<_> = (0..3).map(|id| world.peer(id)).collect();
    for peer in &mut peers {
        peer.send(&method(1, 20, 10, &[&short("")]), world.now);
    }
    while !feed.is_empty() {
        let what = feed.byte();
        match what % 16 {
            0 => world.pass(u64::from(feed.byte()), &mut peers),
            1 => world.load(),
            2 => world.pass(30_000, &mut peers),
            3 => {
                let peer = world.peer(u64::from(what) + 10);
                let at = usize::from(feed.byte()) % peers.len();
                let old = std::mem::replace(&mut peers[at], peer);
                old.leave(world.now);
            }
            _ => {
                let at = usize::from(what / 16) % peers.len();
                let mut bytes = request(&mut feed);
                for _ in 0..what % 3 {
                    bytes.extend(request(&mut feed));
                }
                peers[at].send(&bytes, world.now);
            }
        }
    }
    world.end(peers);
}
