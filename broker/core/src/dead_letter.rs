//! Dead-lettering: the history that a message carries, where it goes, and when it has gone round long enough.

use std::sync::Arc;

use crate::effect::{DeadLetter, Reason};
use crate::hub::Hub;
use crate::message::Message;
use crate::value::{Table, Value};

/// What core must be able to do with properties in a protocol's own encoding.
pub trait Dialect: Send + Sync {
    /// The headers among the properties; empty when there are none.
    fn headers(&self, message: &Message) -> Table;

    /// The message as it leaves for a dead-letter exchange: other headers, no expiration, a new exchange and key.
    fn dead_lettered(&self, message: &Message, headers: &Table, exchange: &str, routing_key: &[u8]) -> Message;

    /// The expiration property as its publisher wrote it.
    fn expiration(&self, message: &Message) -> Option<Arc<str>>;

    /// What the properties say, for another protocol.
    fn hub(&self, message: &Message) -> Hub;

    /// Properties in this protocol's encoding; `message` has the facts that are not in `hub`.
    fn encode(&self, hub: &Hub, message: &Message) -> Vec<u8>;
}

fn text(table: &Table, name: &str) -> Option<Vec<u8>> {
    match table.get(name) {
        Some(Value::Text(bytes)) => Some(bytes.to_vec()),
        _ => None,
    }
}

fn deaths(headers: &Table) -> Vec<Table> {
    let Some(Value::Array(deaths)) = headers.get("x-death") else {
        return Vec::new();
    };
    deaths.iter().filter_map(|death| if let Value::Table(death) = death { Some(death.clone()) } else { None }).collect()
}

/// Strings in the header `name`: further routing keys.
pub fn extra_keys(headers: &Table, name: &str) -> Vec<Arc<[u8]>> {
    let Some(Value::Array(keys)) = headers.get(name) else {
        return Vec::new();
    };
    keys.iter().filter_map(|key| if let Value::Text(key) = key { Some(Arc::clone(key)) } else { None }).collect()
}

/// The headers of a message that leaves its queue for `letter.reason`: its entry in `x-death` is counted up and
/// moved to the front, or made.
pub fn bury(letter: &DeadLetter, mut headers: Table, expiration: Option<&str>, now: u64) -> Table {
    let mut deaths = deaths(&headers);
    let queue = letter.queue_name.as_bytes();
    let reason = letter.reason.word().as_bytes();
    let known = deaths.iter().position(|death| {
        text(death, "queue").as_deref() == Some(queue) && text(death, "reason").as_deref() == Some(reason)
    });
    let death = match known {
        Some(at) => {
            let mut death = deaths.remove(at);
            let count = death.get("count").and_then(Value::as_integer).unwrap_or(0);
            death.set("count", Value::I64(count.saturating_add(1)));
            death
        }
        None => first_death(letter, &headers, expiration, now),
    };
    deaths.insert(0, death);
    let exchange = Value::text(letter.message.exchange());
    for which in ["first", "last"] {
        if which == "last" || headers.get("x-first-death-reason").is_none() {
            headers.set(&format!("x-{which}-death-reason"), Value::text(letter.reason.word()));
            headers.set(&format!("x-{which}-death-queue"), Value::text(&*letter.queue_name));
            headers.set(&format!("x-{which}-death-exchange"), exchange.clone());
        }
    }
    headers.set("x-death", Value::Array(deaths.into_iter().map(Value::Table).collect()));
    if letter.target.routing_key.is_some() {
        headers.remove("CC");
    }
    headers.remove("BCC");
    headers
}

fn first_death(letter: &DeadLetter, headers: &Table, expiration: Option<&str>, now: u64) -> Table {
    let mut keys = vec![Value::text(letter.message.routing_key())];
    keys.extend(extra_keys(headers, "CC").into_iter().map(Value::Text));
    let mut death = Table(vec![
        ("count".into(), Value::I64(1)),
        ("reason".into(), Value::text(letter.reason.word())),
        ("queue".into(), Value::text(&*letter.queue_name)),
        ("time".into(), Value::Timestamp(now / 1000)),
        ("exchange".into(), Value::text(letter.message.exchange())),
        ("routing-keys".into(), Value::Array(keys)),
    ]);
    if let Some(expiration) = expiration {
        death.set("original-expiration", Value::text(expiration));
    }
    death
}

/// Whether a message with this history would come to `queue` in a circle that nobody's rejection drives: such a
/// message is dropped, as RabbitMQ does.
pub fn goes_in_circles(headers: &Table, queue: &str, reason: Reason) -> bool {
    if reason == Reason::Rejected {
        return false;
    }
    let deaths = deaths(headers);
    let Some(at) = deaths.iter().position(|death| text(death, "queue").as_deref() == Some(queue.as_bytes())) else {
        return false;
    };
    deaths.iter().take(at + 1).all(|death| text(death, "reason").as_deref() != Some(b"rejected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::DeadLetterTarget;
    use crate::exchange::QueueTarget;
    use crate::message::{Facts, Origin, Span};
    use crate::store::QueueId;

    fn letter(queue: &str, reason: Reason) -> DeadLetter {
        let none = Span::default();
        let facts = Facts {
            exchange: none,
            routing_key: none,
            properties: none,
            body: none,
            origin: Origin::Amqp091,
            priority: 0,
            persistent: false,
            ttl: None,
        };
        DeadLetter {
            queue: QueueTarget { id: QueueId(1), shard: 0, slot: 0 },
            queue_name: queue.into(),
            vhost: "/".into(),
            target: DeadLetterTarget { exchange: "dlx".into(), routing_key: None },
            message: Message::assemble(facts, b"x", b"k", b"", b""),
            reason,
            stored: None,
        }
    }

    fn count(headers: &Table, at: usize) -> Option<i64> {
        deaths(headers).get(at)?.get("count")?.as_integer()
    }

    #[test]
    fn deaths_are_counted_per_queue_and_reason_newest_first() {
        let headers = bury(&letter("a", Reason::Rejected), Table::default(), None, 5_000);
        let headers = bury(&letter("b", Reason::Expired), headers, Some("100"), 6_000);
        let headers = bury(&letter("a", Reason::Rejected), headers, None, 7_000);
        assert_eq!((count(&headers, 0), count(&headers, 1)), (Some(2), Some(1)));
        let deaths = deaths(&headers);
        assert_eq!(deaths[0].get("time"), Some(&Value::Timestamp(5)), "of the first event");
        assert_eq!(deaths[1].get("original-expiration"), Some(&Value::text("100")));
        assert_eq!(headers.get("x-first-death-queue"), Some(&Value::text("a")));
        assert_eq!(headers.get("x-last-death-reason"), Some(&Value::text("rejected")));
    }

    #[test]
    fn circles_end_unless_a_rejection_drives_them() {
        let expired = bury(&letter("a", Reason::Expired), Table::default(), None, 0);
        assert!(goes_in_circles(&expired, "a", Reason::Expired));
        assert!(!goes_in_circles(&expired, "b", Reason::Expired));
        let rejected = bury(&letter("a", Reason::Rejected), Table::default(), None, 0);
        let retried = bury(&letter("b", Reason::Expired), rejected, None, 0);
        assert!(!goes_in_circles(&retried, "a", Reason::Expired));
        assert!(goes_in_circles(&retried, "b", Reason::Expired));
    }
}
