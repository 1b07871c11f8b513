//! Every refusal of the core in AMQP 0-9-1's codes and RabbitMQ's words, and what each of them closes.

use std::fmt::Write;

use portolan_core::refusal::{Fault, Given, Permission, QueueKind, Refusal};
use portolan_core::value::Value;

use crate::codec::Malformed;

/// What an error closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Channel,
    Connection,
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) scope: Scope,
}

impl Failure {
    pub(crate) fn channel(code: u16, text: impl AsRef<str>) -> Self {
        Self::new(Scope::Channel, code, text.as_ref())
    }

    pub(crate) fn connection(code: u16, text: impl AsRef<str>) -> Self {
        Self::new(Scope::Connection, code, text.as_ref())
    }

    fn new(scope: Scope, code: u16, text: &str) -> Self {
        Self { code, text: format!("{} - {text}", name(code)), scope }
    }
}

/// Names of the reply codes, AMQP 0-9-1 section 1.2.
fn name(code: u16) -> &'static str {
    match code {
        311 => "CONTENT_TOO_LARGE",
        320 => "CONNECTION_FORCED",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        _ => "INTERNAL_ERROR",
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self { code: malformed.reply_code(), text: malformed.reply_text(), scope: Scope::Connection }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(resource) => {
                let kind = resource.to_string();
                Self::channel(404, format!("no {kind}"))
            }
            Refusal::Forbidden { permission, resource, user } => {
                let verb = verb(permission);
                Self::channel(403, format!("{verb} access to {resource} refused for user '{user}'"))
            }
            Refusal::TopicForbidden { permission, resource, key, user } => {
                let verb = verb(permission);
                let (exchange, vhost) = (&resource.name, &resource.vhost);
                let topic = format!("topic '{key}' in exchange '{exchange}' in vhost '{vhost}'");
                Self::channel(403, format!("{verb} access to {topic} refused for user '{user}'"))
            }
            Refusal::Reserved(resource) => {
                let kind = kind_name(&resource);
                Self::channel(403, format!("{kind} name '{}' contains reserved prefix 'amq.*'", resource.name))
            }
            Refusal::DefaultExchange => Self::channel(403, "operation not permitted on the default exchange"),
            Refusal::SystemExchange(resource) => {
                Self::channel(403, format!("deletion of system {resource} not allowed"))
            }
            Refusal::InternalExchange(resource) => Self::channel(403, format!("cannot publish to internal {resource}")),
            Refusal::Locked(resource) => Self::channel(
                405,
                format!(
                    "cannot obtain exclusive access to locked {resource}. It could be originally declared on \
                     another connection or the exclusive property value does not match that of the original \
                     declaration."
                ),
            ),
            Refusal::Inequivalent { argument, resource, received, current } => Self::channel(
                406,
                format!("inequivalent arg '{argument}' for {resource}: {}", difference(&received, &current)),
            ),
            Refusal::InvalidArgument { argument, resource, fault } => {
                Self::channel(406, invalid(argument, &resource.to_string(), kind_name(&resource), &fault))
            }
            Refusal::InvalidProperty { property, resource } => {
                Self::channel(406, format!("invalid property '{property}' for {resource}"))
            }
            Refusal::ServerNamed(kind) => {
                Self::channel(406, format!("Cannot declare a server-named queue for type {}", kind_atom(kind)))
            }
            Refusal::ExchangeType(kind) => Self::channel(406, format!("unknown exchange type '{kind}'")),
            Refusal::MatchValue(value) => Self::channel(406, match_value(&value)),
            Refusal::NotEmpty(resource) => Self::channel(406, format!("{resource} not empty")),
            Refusal::InUse(resource) => Self::channel(406, format!("{resource} in use")),
            Refusal::ExclusiveUse(resource) => Self::channel(403, format!("{resource} in exclusive use")),
            Refusal::Limit { what, limit } => Self::channel(406, format!("limit of {limit} {what} is reached")),
            Refusal::Unavailable(error) => Self::connection(541, error.to_string()),
        }
    }
}

fn verb(permission: Permission) -> &'static str {
    match permission {
        Permission::Configure => "configure",
        Permission::Write => "write",
        Permission::Read => "read",
    }
}

fn kind_name(resource: &portolan_core::refusal::Resource) -> &'static str {
    match resource.kind {
        portolan_core::refusal::Kind::Queue => "queue",
        portolan_core::refusal::Kind::Exchange => "exchange",
    }
}

fn kind_atom(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
    }
}

/// RabbitMQ's word for the type of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Void => "void",
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::Table(_) => "table",
        Value::Array(_) => "array",
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::Timestamp(seconds) => seconds.to_string(),
        other => other.as_integer().map_or_else(|| type_name(other).to_owned(), |number| number.to_string()),
    }
}

fn difference(received: &Given, current: &Given) -> String {
    let described = |value: &Value| format!("the value '{}' of type '{}'", plain(value), type_name(value));
    match (received, current) {
        (Given::Argument(None), Given::Argument(Some(current))) => {
            format!("received none but current is {}", described(current))
        }
        (Given::Argument(Some(received)), Given::Argument(None)) => {
            format!("received {} but current is none", described(received))
        }
        _ => format!("received '{}' but current is '{}'", shown(received), shown(current)),
    }
}

fn shown(given: &Given) -> String {
    match given {
        Given::Flag(flag) => flag.to_string(),
        Given::Word(word) => word.to_string(),
        Given::Argument(value) => value.as_ref().map(plain).unwrap_or_default(),
    }
}

fn invalid(argument: &str, resource: &str, kind: &str, fault: &Fault) -> String {
    let mut text = format!("invalid arg '{argument}' for {resource}");
    // Writing to a string cannot fail.
    let _ = match fault {
        Fault::NameType(value) => {
            text = format!("invalid type '{}' for arg '{argument}' in {resource}", type_name(value));
            Ok(())
        }
        Fault::NotForType(kind) => write!(text, " of queue type {}", kind_atom(*kind)),
        Fault::NotAnInteger(value) => write!(text, ": \"expected integer, got {}\"", type_name(value)),
        Fault::Type(value) => write!(text, ": {{unacceptable_type,{}}}", type_name(value)),
        Fault::Negative(number) => write!(text, ": {{value_negative,{number}}}"),
        Fault::Zero => write!(text, ": {{value_zero,0}}"),
        Fault::TooLarge(number) => write!(text, ": {{value_too_large,{number}}}"),
        Fault::AboveMaximum(number) => write!(text, ": {{max_value_exceeded,{number}}}"),
        Fault::Overflow => write!(text, ": invalid_overflow"),
        Fault::KeyWithoutExchange => write!(text, ": routing_key_but_no_dlx_defined"),
        Fault::Unsupported { what, value } => write!(text, ": \"unsupported {what} '{value}'\""),
    };
    debug_assert!(!kind.is_empty());
    text
}

fn match_value(value: &Value) -> String {
    match value {
        Value::Text(text) => format!(
            "Invalid x-match field value <<\"{}\">>; expected all, any, all-with-x, or any-with-x",
            String::from_utf8_lossy(text)
        ),
        other => format!("Invalid x-match field type {} (value {}); expected longstr", type_name(other), plain(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::refusal::{Kind, Resource};

    fn queue() -> Resource {
        Resource { kind: Kind::Queue, name: "q".into(), vhost: "/".into() }
    }

    #[track_caller]
    fn check(refusal: Refusal, code: u16, text: &str) {
        let failure = Failure::from(refusal);
        assert_eq!((failure.code, &*failure.text), (code, text));
    }

    #[test]
    fn texts_are_rabbitmqs() {
        check(Refusal::NotFound(queue()), 404, "NOT_FOUND - no queue 'q' in vhost '/'");
        let argument = "x-message-ttl";
        check(
            Refusal::InvalidArgument { argument, resource: queue(), fault: Fault::NotAnInteger(Value::text("x")) },
            406,
            "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        );
        check(
            Refusal::Inequivalent {
                argument: argument.into(),
                resource: queue(),
                received: Given::Argument(Some(Value::I32(1000))),
                current: Given::Argument(None),
            },
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '1000' of type 'signedint' but current is none",
        );
        check(
            Refusal::MatchValue(Value::I32(4)),
            406,
            "PRECONDITION_FAILED - Invalid x-match field type signedint (value 4); expected longstr",
        );
    }
}
