//! Why we said no, in domain words. Each protocol maps every variant to its own code, text and scope.

use std::fmt;
use std::sync::Arc;

use crate::store::StoreError;
use crate::value::Value;

/// What kind of thing a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// A named thing in a vhost.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name; may be one that does not exist.
    pub name: Arc<str>,
    /// Where.
    pub vhost: Arc<str>,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Queue => "queue",
            Kind::Exchange => "exchange",
        };
        write!(f, "{kind} '{}' in vhost '{}'", self.name, self.vhost)
    }
}

/// What a user must be permitted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Create or delete.
    Configure,
    /// Send to.
    Write,
    /// Receive from.
    Read,
}

/// The two sides of an argument that differs, as the owner of the first declaration and the peer gave it.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// A flag such as durable.
    Flag(bool),
    /// A word such as an exchange's type.
    Word(Arc<str>),
    /// An argument's value, or that there is none.
    Argument(Option<Value>),
}

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Should be an integer.
    NotAnInteger(Value),
    /// Has the wrong type.
    Type(Value),
    /// Has the wrong type, for an argument that names an exchange.
    NameType(Value),
    /// Below zero.
    Negative(i64),
    /// Zero where that makes no sense.
    Zero,
    /// Beyond the largest time.
    TooLarge(i64),
    /// Beyond the largest value.
    AboveMaximum(i64),
    /// An overflow behaviour that does not exist.
    Overflow,
    /// A dead-letter routing key without a dead-letter exchange.
    KeyWithoutExchange,
    /// A word that is not among the known ones.
    Unsupported {
        /// What the word chooses, as in "queue mode".
        what: &'static str,
        /// The word.
        value: String,
    },
    /// Known, but not for this type of queue.
    NotForType(QueueKind),
}

/// The type of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum QueueKind {
    /// Durable or transient, every feature.
    Classic,
    /// Durable, with a delivery limit.
    Quorum,
}

/// A request that the broker turns down.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// No such queue or exchange.
    NotFound(Resource),
    /// The user lacks a permission.
    Forbidden {
        /// Which one.
        permission: Permission,
        /// For what.
        resource: Resource,
        /// Who.
        user: Arc<str>,
    },
    /// The user may not use that routing key with that topic exchange.
    TopicForbidden {
        /// Which permission.
        permission: Permission,
        /// The exchange.
        resource: Resource,
        /// The routing or binding key.
        key: String,
        /// Who.
        user: Arc<str>,
    },
    /// Names that begin with `amq.` are the broker's.
    Reserved(Resource),
    /// The default exchange cannot be declared, bound or deleted.
    DefaultExchange,
    /// A pre-declared exchange cannot be deleted.
    SystemExchange(Resource),
    /// An internal exchange takes no messages from clients.
    InternalExchange(Resource),
    /// The queue is exclusive to another connection.
    Locked(Resource),
    /// A declaration differs from what exists.
    Inequivalent {
        /// In which argument or property.
        argument: String,
        /// Of what.
        resource: Resource,
        /// What the client wants.
        received: Given,
        /// What is.
        current: Given,
    },
    /// An argument is unusable.
    InvalidArgument {
        /// Which one.
        argument: &'static str,
        /// Of what.
        resource: Resource,
        /// What is wrong.
        fault: Fault,
    },
    /// A property is impossible for this type of queue.
    InvalidProperty {
        /// Which one.
        property: &'static str,
        /// Of what.
        resource: Resource,
    },
    /// Queues of this type need a name.
    ServerNamed(QueueKind),
    /// No such type of exchange.
    ExchangeType(String),
    /// `x-match` of a headers binding is none of the four words.
    MatchValue(Value),
    /// Queue has messages and the client wanted it gone only if empty.
    NotEmpty(Resource),
    /// Something uses it and the client wanted it gone only if unused.
    InUse(Resource),
    /// One consumer has or wants the queue for itself.
    ExclusiveUse(Resource),
    /// A configured limit is reached.
    Limit {
        /// What there would be too many of, with where: "queues in vhost '/'".
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The store cannot do it.
    Unavailable(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error)
    }
}
