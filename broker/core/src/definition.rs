//! What a queue is declared to be: properties, arguments, their validation and equivalence.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::refusal::{Fault, Given, QueueKind, Refusal, Resource};
use crate::value::{Table, Value};

/// The longest time that an argument or a message may give: ten years in milliseconds, RabbitMQ's limit.
pub const LONGEST_MS: i64 = 315_360_000_000;

/// What happens to messages that a full queue cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ready message goes.
    #[default]
    DropHead,
    /// The new message is refused.
    RejectPublish,
    /// The new message is refused and dead-lettered.
    RejectPublishDeadLetter,
}

/// Where rejected, expired and dropped messages go.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterTarget {
    /// The exchange.
    pub exchange: Arc<str>,
    /// Replaces the routing keys when set.
    pub routing_key: Option<Arc<str>>,
}

/// The arguments of a queue, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueOptions {
    /// Milliseconds that a message may wait.
    pub message_ttl: Option<u64>,
    /// Milliseconds without use after which the queue goes.
    pub expires: Option<u64>,
    /// Most ready messages.
    pub max_length: Option<u64>,
    /// Most bytes of ready bodies.
    pub max_length_bytes: Option<u64>,
    /// What happens beyond.
    pub overflow: Overflow,
    /// Where rejected, expired and dropped messages go.
    pub dead_letter: Option<DeadLetterTarget>,
    /// Highest priority level, 0 for none.
    pub max_priority: u8,
    /// One consumer at a time receives.
    pub single_active_consumer: bool,
    /// Returns after which a message is dead-lettered.
    pub delivery_limit: Option<u32>,
    /// A message that has been delivered once comes back whatever its time [MQTT-4.3.3-7].
    pub begun_stays: bool,
}

/// What a client declares a queue to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueDefinition {
    /// Its type.
    pub kind: QueueKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with the connection that declared it.
    pub exclusive: bool,
    /// Goes when its last consumer goes.
    pub auto_delete: bool,
    /// As declared.
    pub arguments: Table,
}

impl QueueDefinition {
    /// Checks properties and arguments of a new queue.
    ///
    /// # Errors
    /// The refusal that RabbitMQ gives for the first thing wrong.
    pub fn validate(
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
        resource: &Resource,
    ) -> Result<(Self, QueueOptions), Refusal> {
        let reader = Reader { arguments: &arguments, resource };
        let kind = reader.kind()?;
        if kind == QueueKind::Quorum {
            let impossible = [(!durable, "non-durable"), (exclusive, "exclusive-owner"), (auto_delete, "auto-delete")];
            if let Some((_, property)) = impossible.into_iter().find(|(wrong, _)| *wrong) {
                return Err(Refusal::InvalidProperty { property, resource: resource.clone() });
            }
        }
        let options = reader.options(kind)?;
        Ok((Self { kind, durable, exclusive, auto_delete, arguments }, options))
    }

    /// Compares a repeated declaration with this one, in RabbitMQ's order: durable, auto_delete, then the arguments
    /// that the type knows. Exclusivity is the caller's to check first.
    ///
    /// # Errors
    /// [`Refusal::Inequivalent`] for the first difference.
    pub fn equivalent(
        &self,
        durable: bool,
        auto_delete: bool,
        arguments: &Table,
        resource: &Resource,
    ) -> Result<(), Refusal> {
        let differs = |argument: &str, received, current| {
            Err(Refusal::Inequivalent { argument: argument.to_owned(), resource: resource.clone(), received, current })
        };
        for (name, received, current) in
            [("durable", durable, self.durable), ("auto_delete", auto_delete, self.auto_delete)]
        {
            if received != current {
                return differs(name, Given::Flag(received), Given::Flag(current));
            }
        }
        for name in KNOWN {
            let received = given(arguments, name);
            let current = given(&self.arguments, name);
            let same = match (received, current) {
                (Some(a), Some(b)) => a.same(b),
                (None, None) => true,
                // A missing type is classic.
                (Some(one), None) | (None, Some(one)) => *name == "x-queue-type" && one.as_text() == Some("classic"),
            };
            if !same {
                return differs(name, Given::Argument(received.cloned()), Given::Argument(current.cloned()));
            }
        }
        Ok(())
    }
}

/// The arguments that mean something, in the order in which they are compared.
const KNOWN: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-type",
];

/// An argument, unless it is one of the ways to say nothing about the type.
fn given<'a>(arguments: &'a Table, name: &str) -> Option<&'a Value> {
    let value = arguments.get(name)?;
    let unsaid = name == "x-queue-type" && matches!(value.as_text(), Some("" | "undefined"));
    (!unsaid).then_some(value)
}

struct Reader<'a> {
    arguments: &'a Table,
    resource: &'a Resource,
}

impl Reader<'_> {
    fn fault(&self, argument: &'static str, fault: Fault) -> Refusal {
        Refusal::InvalidArgument { argument, resource: self.resource.clone(), fault }
    }

    fn kind(&self) -> Result<QueueKind, Refusal> {
        let name = "x-queue-type";
        match given(self.arguments, name) {
            None => Ok(QueueKind::Classic),
            Some(Value::Text(_)) => match given(self.arguments, name).and_then(Value::as_text) {
                Some("classic") => Ok(QueueKind::Classic),
                Some("quorum") => Ok(QueueKind::Quorum),
                other => Err(self.unsupported(name, "queue type", other)),
            },
            Some(value) => Err(self.fault(name, Fault::Type(value.clone()))),
        }
    }

    fn unsupported(&self, argument: &'static str, what: &'static str, value: Option<&str>) -> Refusal {
        self.fault(argument, Fault::Unsupported { what, value: value.unwrap_or_default().to_owned() })
    }

    fn options(&self, kind: QueueKind) -> Result<QueueOptions, Refusal> {
        self.belongs_to(kind)?;
        let expires = self.number("x-expires", LONGEST_MS)?;
        if expires == Some(0) {
            return Err(self.fault("x-expires", Fault::Zero));
        }
        let limit = |name| self.number(name, i64::MAX);
        Ok(QueueOptions {
            expires,
            message_ttl: self.number("x-message-ttl", LONGEST_MS)?,
            max_length: limit("x-max-length")?,
            max_length_bytes: limit("x-max-length-bytes")?,
            max_priority: self.priority()?,
            overflow: self.overflow()?,
            dead_letter: self.dead_letter()?,
            single_active_consumer: self.flag("x-single-active-consumer")?,
            delivery_limit: self.delivery_limit()?,
            begun_stays: false,
        })
        .and_then(|options| self.ignored().map(|()| options))
    }

    /// Arguments that exist, but not for this type.
    fn belongs_to(&self, kind: QueueKind) -> Result<(), Refusal> {
        let foreign: &[&'static str] = match kind {
            QueueKind::Classic => &[
                "x-delivery-limit",
                "x-dead-letter-strategy",
                "x-quorum-initial-group-size",
                "x-max-age",
                "x-stream-max-segment-size-bytes",
                "x-stream-filter-size-bytes",
                "x-initial-cluster-size",
            ],
            QueueKind::Quorum => &[
                "x-max-priority",
                "x-queue-mode",
                "x-max-age",
                "x-stream-max-segment-size-bytes",
                "x-stream-filter-size-bytes",
                "x-initial-cluster-size",
            ],
        };
        match foreign.iter().find(|name| self.arguments.get(name).is_some()) {
            Some(name) => Err(self.fault(name, Fault::NotForType(kind))),
            None => Ok(()),
        }
    }

    fn integer(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(value) => match value.as_integer() {
                Some(number) => Ok(Some(number)),
                None => Err(self.fault(name, Fault::NotAnInteger(value.clone()))),
            },
        }
    }

    fn number(&self, name: &'static str, most: i64) -> Result<Option<u64>, Refusal> {
        match self.integer(name)? {
            None => Ok(None),
            Some(number) if number > most => Err(self.fault(name, Fault::TooLarge(number))),
            Some(number) => u64::try_from(number).map(Some).map_err(|_| self.fault(name, Fault::Negative(number))),
        }
    }

    fn priority(&self) -> Result<u8, Refusal> {
        let name = "x-max-priority";
        match self.number(name, i64::MAX)? {
            None => Ok(0),
            Some(number) => u8::try_from(number)
                .map_err(|_| self.fault(name, Fault::AboveMaximum(i64::try_from(number).unwrap_or(i64::MAX)))),
        }
    }

    fn word(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(value @ Value::Text(_)) => Ok(Some(value.as_text().unwrap_or_default())),
            Some(value) => Err(self.fault(name, Fault::Type(value.clone()))),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        match self.arguments.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.fault(name, Fault::Type(value.clone()))),
        }
    }

    fn overflow(&self) -> Result<Overflow, Refusal> {
        Ok(match self.word("x-overflow")? {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            Some(_) => return Err(self.fault("x-overflow", Fault::Overflow)),
        })
    }

    fn dead_letter(&self) -> Result<Option<DeadLetterTarget>, Refusal> {
        let exchange = match self.arguments.get("x-dead-letter-exchange") {
            None => None,
            Some(value @ Value::Text(_)) => value.as_text(),
            Some(value) => {
                return Err(self.fault("x-dead-letter-exchange", Fault::NameType(value.clone())));
            }
        };
        let routing_key = self.word("x-dead-letter-routing-key")?;
        match (exchange, routing_key) {
            (None, Some(_)) => Err(self.fault("x-dead-letter-routing-key", Fault::KeyWithoutExchange)),
            (None, None) => Ok(None),
            (Some(exchange), key) => {
                Ok(Some(DeadLetterTarget { exchange: exchange.into(), routing_key: key.map(Into::into) }))
            }
        }
    }

    fn delivery_limit(&self) -> Result<Option<u32>, Refusal> {
        // A negative limit means none, as in RabbitMQ 4.
        Ok(self.integer("x-delivery-limit")?.and_then(|limit| u32::try_from(limit).ok()))
    }

    /// Arguments of RabbitMQ that Portolan has no use for: checked, so that a mistake shows, and then ignored.
    fn ignored(&self) -> Result<(), Refusal> {
        if let Some(mode) = self.word("x-queue-mode")?
            && !matches!(mode, "lazy" | "default")
        {
            return Err(self.unsupported("x-queue-mode", "queue mode", Some(mode)));
        }
        match self.integer("x-queue-version")? {
            None | Some(1 | 2) => Ok(()),
            Some(other) => Err(self.unsupported("x-queue-version", "queue version", Some(&other.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Kind;

    fn resource() -> Resource {
        Resource { kind: Kind::Queue, name: "q".into(), vhost: "/".into() }
    }

    fn declare(arguments: &[(&str, Value)]) -> Result<(QueueDefinition, QueueOptions), Refusal> {
        let table = Table(arguments.iter().map(|(name, value)| ((*name).into(), value.clone())).collect());
        QueueDefinition::validate(true, false, false, table, &resource())
    }

    #[test]
    fn times_reach_ten_years_and_no_further() {
        assert_eq!(
            declare(&[("x-message-ttl", Value::I64(LONGEST_MS))]).map(|(_, o)| o.message_ttl).ok().flatten(),
            Some(315_360_000_000)
        );
        assert!(matches!(
            declare(&[("x-message-ttl", Value::I64(LONGEST_MS + 1))]),
            Err(Refusal::InvalidArgument { fault: Fault::TooLarge(_), .. })
        ));
        assert!(matches!(
            declare(&[("x-expires", Value::I32(0))]),
            Err(Refusal::InvalidArgument { fault: Fault::Zero, .. })
        ));
    }

    #[test]
    fn a_missing_type_equals_classic_and_integers_compare_by_value() {
        let (queue, _) = declare(&[("x-max-length", Value::I32(5))]).expect("valid");
        let again = Table(vec![
            ("x-queue-type".into(), Value::text("classic")),
            ("x-max-length".into(), Value::I64(5)),
            ("x-unheard-of".into(), Value::Bool(true)),
        ]);
        assert!(queue.equivalent(true, false, &again, &resource()).is_ok());
        assert!(queue.equivalent(true, true, &again, &resource()).is_err());
        assert!(queue.equivalent(true, false, &Table::default(), &resource()).is_err());
    }

    #[test]
    fn a_dead_letter_key_needs_an_exchange() {
        assert!(declare(&[("x-dead-letter-routing-key", Value::text("k"))]).is_err());
        let (_, options) = declare(&[("x-dead-letter-exchange", Value::text(""))]).expect("valid");
        assert_eq!(options.dead_letter, Some(DeadLetterTarget { exchange: "".into(), routing_key: None }));
    }
}
