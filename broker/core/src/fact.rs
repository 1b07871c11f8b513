//! The catalogue as facts: how a vhost, exchange, queue or binding is named and written in the store.

use serde::{Deserialize, Serialize};

use crate::catalogue::Binding;
use crate::definition::QueueDefinition;
use crate::exchange::ExchangeDefinition;
use crate::session::{Subscription, Will};

/// A name with its length before it, so that no name can run into the next one.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    put(&mut out, text.as_bytes());
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Names are at most 255 bytes and arguments are limited; what would not fit is cut and still unambiguous.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

/// What all bindings to a destination begin with, when sorted by destination.
pub(crate) fn destination(to_queue: bool, destination: &str) -> Vec<u8> {
    let mut out = vec![u8::from(to_queue)];
    put(&mut out, destination.as_bytes());
    out
}

/// The identity of a binding in its vhost; begins with [`name`] of the source.
pub(crate) fn binding_id(binding: &Binding) -> Box<[u8]> {
    let mut out = name(&binding.source);
    out.extend(destination(binding.to_queue, &binding.destination));
    put(&mut out, &binding.key);
    if !binding.arguments.is_empty() {
        out.extend(encode(&binding.arguments));
    }
    out.into()
}

/// The same, sorted by destination.
pub(crate) fn binding_by_destination(binding: &Binding) -> Box<[u8]> {
    let mut out = destination(binding.to_queue, &binding.destination);
    out.extend(binding_id(binding));
    out.into()
}

/// What a fact is about. Serialised with names, so that later versions can add fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Fact {
    /// There is a vhost.
    Vhost {
        /// Its name.
        name: String,
    },
    /// There is an exchange.
    Exchange {
        /// Its vhost.
        vhost: String,
        /// Its name.
        name: String,
        /// What it is.
        definition: ExchangeDefinition,
    },
    /// There is a queue.
    Queue {
        /// Its vhost.
        vhost: String,
        /// Its name.
        name: String,
        /// Its id.
        id: u64,
        /// What it is.
        definition: QueueDefinition,
    },
    /// There is a binding.
    Binding {
        /// Its vhost.
        vhost: String,
        /// What it is.
        binding: Binding,
    },
    /// There is a session that outlives its connection.
    Session {
        /// Its vhost.
        vhost: String,
        /// Its client's id.
        client: String,
        /// The id of its queue, once it has one.
        queue: Option<u64>,
        /// Seconds that it is kept without a connection.
        expiry: u32,
        /// Since when nobody has it, milliseconds since the epoch; 0 while somebody does.
        left_at: u64,
        /// To be published when its connection ends, or later.
        will: Option<Will>,
    },
    /// There is a shared subscription.
    Group {
        /// Its vhost.
        vhost: String,
        /// Its name.
        name: String,
        /// The id of its queue.
        queue: u64,
        /// The pattern by which it is bound.
        pattern: Vec<u8>,
    },
    /// A session has a subscription.
    Subscription {
        /// Its vhost.
        vhost: String,
        /// The session's client.
        client: String,
        /// What to; empty for a group's member.
        pattern: Vec<u8>,
        /// The group that it belongs to.
        group: Option<String>,
        /// How.
        subscription: Subscription,
    },
    /// A session received a QoS 2 message that its sender has yet to release.
    Received {
        /// Its vhost.
        vhost: String,
        /// The session's client.
        client: String,
        /// The message's packet id.
        packet_id: u16,
    },
    /// A vhost's retained messages are stored as if a queue of that id had them.
    RetainedQueue {
        /// Its vhost.
        vhost: String,
        /// The id.
        id: u64,
    },
    /// Ids of queues below this one may have been given out.
    QueueIds {
        /// The lowest id that never was.
        reserved: u64,
    },
}

impl Fact {
    /// The key under which the store keeps it. Facts sort so that what others refer to comes first.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Vhost { name } => key(0, name, &[]),
            Self::Exchange { vhost, name, .. } => key(1, vhost, name.as_bytes()),
            Self::Queue { vhost, name, .. } => key(2, vhost, name.as_bytes()),
            Self::Binding { vhost, binding } => key(3, vhost, &binding_id(binding)),
            Self::QueueIds { .. } => key(4, "", &[]),
            Self::Session { vhost, client, .. } => key(5, vhost, client.as_bytes()),
            Self::Group { vhost, name, .. } => key(6, vhost, name.as_bytes()),
            Self::Subscription { vhost, client, pattern, group, .. } => {
                let mut rest = name(client);
                match group {
                    Some(group) => rest.extend([&[0], group.as_bytes()].concat()),
                    None => rest.extend([&[1], &**pattern].concat()),
                }
                key(7, vhost, &rest)
            }
            Self::RetainedQueue { vhost, .. } => key(9, vhost, &[]),
            Self::Received { vhost, client, packet_id } => {
                key(8, vhost, &[name(client), packet_id.to_be_bytes().to_vec()].concat())
            }
        }
    }

    /// The value that the store keeps.
    pub fn value(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a stored value; `None` when it is not a fact that this version knows.
    pub fn read(value: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(value).ok()
    }
}

fn key(kind: u8, vhost: &str, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    put(&mut out, vhost.as_bytes());
    out.extend_from_slice(rest);
    out
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Plain data into memory: serialisation has nothing to fail at. An empty value would be read as no fact.
    rmp_serde::to_vec_named(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Table, Value};

    #[test]
    fn a_fact_reads_back() {
        let arguments = Table(vec![("x-match".into(), Value::text("any")), ("n".into(), Value::I8(-3))]);
        let binding =
            Binding { source: "x".into(), to_queue: true, destination: "q".into(), key: (*b"k").into(), arguments };
        let fact = Fact::Binding { vhost: "/".into(), binding: binding.clone() };
        match Fact::read(&fact.value()) {
            Some(Fact::Binding { vhost, binding: read }) => assert_eq!((&*vhost, read), ("/", binding)),
            other => panic!("{other:?}"),
        }
        assert!(Fact::read(b"\xff\xff").is_none());
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        assert_ne!(key(1, "a", b"bc"), key(1, "ab", b"c"));
    }
}
