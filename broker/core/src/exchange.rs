//! An exchange: how its type turns a routing key and headers into the destinations that are bound to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::refusal::Refusal;
use crate::store::QueueId;
use crate::topic::TopicTrie;
use crate::value::{Table, Value};

/// The queue's place: which shard, which slot there, and its id, which tells whether the slot still holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueTarget {
    /// The queue.
    pub id: QueueId,
    /// Its shard.
    pub shard: u32,
    /// Its slot there.
    pub slot: u32,
}

/// How a session wants what one of its subscriptions matches, in one byte. Of a queue that is not a session's,
/// nothing is known: it takes everything as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant(u8);

impl Grant {
    const QOS: u8 = 0b11;
    const SESSION: u8 = 1 << 2;
    const NO_LOCAL: u8 = 1 << 3;

    /// A session's grant: its highest QoS, and whether it wants what its own client publishes.
    pub fn session(qos: u8, no_local: bool) -> Self {
        Self(qos & Self::QOS | Self::SESSION | if no_local { Self::NO_LOCAL } else { 0 })
    }

    /// The queue is a session's.
    pub fn is_session(self) -> bool {
        self.0 & Self::SESSION != 0
    }

    /// The highest QoS that the session wants.
    pub fn qos(self) -> u8 {
        self.0 & Self::QOS
    }

    /// The session does not want what its own client publishes.
    pub fn no_local(self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    /// What both grant together: a session gets one copy, with the highest QoS \[MQTT-3.3.4-2\].
    pub fn or(self, other: Self) -> Self {
        let qos = self.qos().max(other.qos());
        Self((self.0 | other.0) & !Self::QOS | qos)
    }
}

/// What a binding leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A queue.
    Queue(QueueTarget),
    /// A session's queue, by a subscription: hidden topics are not for filters that begin with a wildcard.
    Session(QueueTarget, Grant),
    /// Another exchange of the vhost.
    Exchange(Arc<str>),
}

/// Destinations with how many bindings lead to each.
#[derive(Clone)]
pub enum Targets {
    /// In order. Nearly every key or pattern leads to few, and a tree's node has places for many.
    Few(SmallVec<[(Destination, u32); 1]>),
    /// More than that: a change copies a path and not the whole.
    Many(imbl::OrdMap<Destination, u32>),
}

/// Destinations that are kept in one piece.
const FEW: usize = 16;

impl Default for Targets {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Targets {
    /// One more binding leads to `destination`.
    pub fn add(&mut self, destination: Destination) {
        match self {
            Self::Few(few) => match few.binary_search_by(|(known, _)| known.cmp(&destination)) {
                Ok(at) => few[at].1 += 1,
                Err(at) if few.len() < FEW => few.insert(at, (destination, 1)),
                Err(_) => {
                    let mut many: imbl::OrdMap<_, _> = few.drain(..).collect();
                    many.insert(destination, 1);
                    *self = Self::Many(many);
                }
            },
            Self::Many(many) => *many.entry(destination).or_insert(0) += 1,
        }
    }

    /// One binding less leads to `destination`.
    pub fn remove(&mut self, destination: &Destination) {
        match self {
            Self::Few(few) => {
                let Ok(at) = few.binary_search_by(|(known, _)| known.cmp(destination)) else { return };
                match few[at].1 {
                    1 => drop(few.remove(at)),
                    _ => few[at].1 -= 1,
                }
            }
            Self::Many(many) => match many.get_mut(destination) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(many.remove(destination)),
                None => {}
            },
        }
        // Well below, so that one that comes and goes does not change the form each time.
        if let Self::Many(many) = self
            && many.len() <= FEW / 2
        {
            *self = Self::Few(many.iter().map(|(destination, count)| (destination.clone(), *count)).collect());
        }
    }

    /// No binding leads anywhere.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Hands each destination to `found`, in order.
    pub fn each<'a>(&'a self, mut found: impl FnMut(&'a Destination)) {
        match self {
            Self::Few(few) => few.iter().for_each(|(destination, _)| found(destination)),
            Self::Many(many) => many.keys().for_each(found),
        }
    }
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// Keys equal byte by byte.
    Direct,
    /// Everything to everyone.
    Fanout,
    /// Patterns of words.
    Topic,
    /// Header values.
    Headers,
}

impl ExchangeKind {
    /// The type of that name.
    ///
    /// # Errors
    /// [`Refusal::ExchangeType`] when there is none.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            other => return Err(Refusal::ExchangeType(other.to_owned())),
        })
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// What a client declares an exchange to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeDefinition {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes when its last binding as a source goes.
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    pub internal: bool,
    /// As declared.
    pub arguments: Table,
}

impl ExchangeDefinition {
    /// Where messages go that match no binding.
    pub fn alternate(&self) -> Option<&str> {
        self.arguments.get("alternate-exchange").and_then(Value::as_text)
    }
}

/// What a headers binding asks of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderRule {
    all: bool,
    wanted: Vec<(Arc<str>, Value)>,
}

impl HeaderRule {
    /// Reads a binding's arguments.
    ///
    /// # Errors
    /// [`Refusal::MatchValue`] for an `x-match` that is none of the four words.
    pub fn parse(arguments: &Table) -> Result<Self, Refusal> {
        let (all, with_x) = match arguments.get("x-match") {
            None => (true, false),
            Some(value) => match value.as_text() {
                Some("all") => (true, false),
                Some("any") => (false, false),
                Some("all-with-x") => (true, true),
                Some("any-with-x") => (false, true),
                _ => return Err(Refusal::MatchValue(value.clone())),
            },
        };
        let counts = |name: &str| name != "x-match" && (with_x || !name.starts_with("x-"));
        let wanted = arguments.0.iter().filter(|(name, _)| counts(name)).cloned().collect();
        Ok(Self { all, wanted })
    }

    /// Whether a message with these headers matches. A rule that wants nothing matches everything with `all` and
    /// nothing with `any`, as RabbitMQ does.
    pub fn matches(&self, headers: &Table) -> bool {
        let fits = |(name, wanted): &(Arc<str>, Value)| {
            headers.get(name).is_some_and(|value| *wanted == Value::Void || wanted.same(value))
        };
        if self.all { self.wanted.iter().all(fits) } else { self.wanted.iter().any(fits) }
    }
}

/// The bindings of an exchange, arranged for its type. Immutable once published; a change makes a cheap copy.
#[derive(Clone)]
enum Routes {
    Direct(imbl::HashMap<Box<[u8]>, Targets>),
    Fanout(Targets),
    Topic(TopicTrie),
    Headers(imbl::Vector<Arc<(HeaderRule, Destination)>>),
}

/// An exchange with its bindings.
#[derive(Clone)]
pub struct Exchange {
    /// Its name.
    pub name: Arc<str>,
    /// What it was declared to be.
    pub definition: Arc<ExchangeDefinition>,
    routes: Routes,
}

impl Exchange {
    /// An exchange without bindings.
    pub fn new(name: Arc<str>, definition: Arc<ExchangeDefinition>) -> Self {
        let routes = match definition.kind {
            ExchangeKind::Direct => Routes::Direct(imbl::HashMap::default()),
            ExchangeKind::Fanout => Routes::Fanout(Targets::default()),
            ExchangeKind::Topic => Routes::Topic(TopicTrie::default()),
            ExchangeKind::Headers => Routes::Headers(imbl::Vector::new()),
        };
        Self { name, definition, routes }
    }

    /// Adds or, with `bound` false, removes a binding.
    ///
    /// # Errors
    /// [`Refusal::MatchValue`] for a headers binding with a wrong `x-match`.
    pub fn bind(
        &mut self,
        key: &[u8],
        arguments: &Table,
        destination: &Destination,
        bound: bool,
    ) -> Result<(), Refusal> {
        let edit = |targets: &mut Targets| match bound {
            true => targets.add(destination.clone()),
            false => targets.remove(destination),
        };
        match &mut self.routes {
            Routes::Direct(keys) => {
                let mut targets = keys.get(key).cloned().unwrap_or_default();
                edit(&mut targets);
                match targets.is_empty() {
                    true => drop(keys.remove(key)),
                    false => drop(keys.insert(key.into(), targets)),
                }
            }
            Routes::Fanout(targets) => edit(targets),
            Routes::Topic(trie) => trie.edit(key, edit),
            Routes::Headers(rules) => {
                let rule = (HeaderRule::parse(arguments)?, destination.clone());
                match bound {
                    true => rules.push_back(Arc::new(rule)),
                    false => {
                        if let Some(at) = rules.iter().position(|known| **known == rule) {
                            drop(rules.remove(at));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes what one pattern of a topic exchange leads to.
    pub fn subscribe(&mut self, pattern: &[u8], edit: impl FnMut(&mut Targets)) {
        if let Routes::Topic(trie) = &mut self.routes {
            trie.edit(pattern, edit);
        }
    }

    /// Whether routing looks at headers, so that a key alone does not decide.
    pub fn reads_headers(&self) -> bool {
        matches!(self.routes, Routes::Headers(_))
    }

    /// Hands every destination to `found` to which a message with this key and these headers goes, some perhaps
    /// more than once.
    pub fn route(&self, key: &[u8], headers: &dyn Fn() -> Table, mut found: impl FnMut(&Destination)) {
        match &self.routes {
            Routes::Direct(keys) => keys.get(key).into_iter().for_each(|targets| targets.each(&mut found)),
            Routes::Fanout(targets) => targets.each(found),
            Routes::Topic(trie) => {
                // [MQTT-4.7.2-1]; AMQP bindings know no hidden keys.
                let hidden = key.first() == Some(&b'$');
                trie.matches(key, |targets, by_wildcard| {
                    targets.each(|to| {
                        if !(hidden && by_wildcard && matches!(to, Destination::Session(..))) {
                            found(to);
                        }
                    });
                });
            }
            Routes::Headers(rules) => {
                let headers = headers();
                rules.iter().filter(|rule| rule.0.matches(&headers)).for_each(|rule| found(&rule.1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(arguments: &[(&str, Value)]) -> HeaderRule {
        HeaderRule::parse(&table(arguments)).expect("a rule")
    }

    fn table(values: &[(&str, Value)]) -> Table {
        Table(values.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    }

    #[test]
    fn destinations_are_the_same_in_either_form() {
        let name = |n: u32| Destination::Exchange(format!("{:02}", n % 40).into());
        let mut targets = Targets::default();
        let mut model = std::collections::BTreeMap::new();
        let check = |targets: &Targets, model: &std::collections::BTreeMap<Destination, u32>| {
            let mut found = Vec::new();
            targets.each(|one| found.push(one.clone()));
            assert_eq!(found, model.keys().cloned().collect::<Vec<_>>());
            assert_eq!(targets.is_empty(), model.is_empty());
        };
        for n in 0..200 {
            targets.add(name(n * 7));
            *model.entry(name(n * 7)).or_insert(0) += 1;
            check(&targets, &model);
        }
        assert!(matches!(targets, Targets::Many(_)));
        for n in 0..200 {
            targets.remove(&name(n * 7));
            let count = model.get_mut(&name(n * 7)).unwrap();
            *count -= 1;
            if *count == 0 {
                model.remove(&name(n * 7));
            }
            check(&targets, &model);
        }
        assert!(matches!(targets, Targets::Few(_)));
    }

    #[test]
    fn all_wants_each_and_any_wants_one() {
        let both = [("a", Value::I32(1)), ("b", Value::Void)];
        let any = [("x-match", Value::text("any")), ("a", Value::I32(1)), ("b", Value::Void)];
        assert!(rule(&both).matches(&table(&[("a", Value::I64(1)), ("b", Value::text("whatever"))])));
        assert!(!rule(&both).matches(&table(&[("a", Value::I64(1))])));
        assert!(rule(&any).matches(&table(&[("b", Value::Bool(false))])));
        assert!(!rule(&any).matches(&table(&[("a", Value::I64(2))])));
    }

    #[test]
    fn names_with_x_count_only_when_asked() {
        let plain = [("x-match", Value::text("any")), ("x-a", Value::I32(1))];
        let with = [("x-match", Value::text("any-with-x")), ("x-a", Value::I32(1))];
        let message = table(&[("x-a", Value::I32(1))]);
        assert!(!rule(&plain).matches(&message));
        assert!(rule(&with).matches(&message));
    }

    #[test]
    fn a_rule_without_wishes_matches_all_or_nothing() {
        assert!(rule(&[]).matches(&Table::default()));
        assert!(!rule(&[("x-match", Value::text("any"))]).matches(&Table::default()));
        assert!(HeaderRule::parse(&table(&[("x-match", Value::text("foo"))])).is_err());
    }
}
