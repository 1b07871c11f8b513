//! From the payload of a method frame to a [`Method`].

use std::sync::Arc;

use amq_protocol::protocol::{
    AMQPClass, access, basic, channel, confirm, connection, exchange, parse_class, queue, tx,
};
use amq_protocol::types::{LongString, ShortString};
use portolan_core::value::Table;

use super::{Close, Consume, ExchangeBinding, ExchangeDeclare, Method, MethodError, QueueBinding, QueueDeclare};
use super::{hot, shape};
use crate::codec::malformed::Snippet;
use crate::codec::{Limits, Malformed, table};

/// Reads the payload of a method frame.
///
/// Before `amq-protocol` sees them, the arguments are walked over: this bounds the nesting and size of their table,
/// finds bytes left over, and tells bad text from a bad form, for which RabbitMQ gives different answers. The table
/// itself is then read by our own reader, because `amq-protocol` sorts a table and keeps one of several
/// values of the same name, both of which operators see when they look at a queue's or a binding's arguments.
pub fn decode(payload: &[u8], limits: Limits) -> Result<Method<'_>, MethodError> {
    let Some((&[c1, c0, m1, m0], args)) = payload.split_first_chunk::<4>() else {
        // RabbitMQ does not see a method in it at all.
        let fault = Malformed::UnknownFrame { kind: 1, payload: Snippet::new(payload) };
        return Err(MethodError { class: 0, method: 0, fault });
    };
    let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
    let refuse = |fault| MethodError { class, method, fault };
    if !shape::is_known_class(class) {
        return Err(refuse(Malformed::UnknownClass(class)));
    }
    let undecodable = || refuse(Malformed::arguments(args));
    let walked = shape::of(class, method).and_then(|fields| shape::walk(fields, args)).ok_or_else(undecodable)?;
    if !walked.is_text {
        // RabbitMQ names no method with this one.
        return Err(MethodError { class: 0, method: 0, fault: Malformed::NotUtf8 });
    }
    if let Some(read) = by_hand(class, method, args) {
        return read.ok_or_else(undecodable);
    }
    let arguments = table::read(walked.table, limits).map_err(refuse)?;
    match parse_class(payload) {
        Ok(([], parsed)) => Ok(convert(parsed, arguments, prefetch_size(args))),
        _ => Err(undecodable()),
    }
}

/// The methods that come with every message, and those whose strings need not be text.
fn by_hand(class: u16, method: u16, args: &[u8]) -> Option<Option<Method<'_>>> {
    Some(match (class, method) {
        (60, 40) => hot::publish(args).map(Method::Publish),
        (60, 50 | 60 | 71) => Some(Method::StrayContent { class, method }),
        (60, 70) => hot::get(args).map(Method::Get),
        (60, 80) => hot::ack(args).map(Method::Ack),
        (60, 90) => hot::reject(args).map(Method::Reject),
        (60, 120) => hot::nack(args).map(Method::Nack),
        _ => return None,
    })
}

/// The first field of basic.qos, which `amq-protocol` leaves out although RabbitMQ refuses any but 0.
fn prefetch_size(args: &[u8]) -> u32 {
    args.first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

fn convert(parsed: AMQPClass, arguments: Table, prefetch_size: u32) -> Method<'static> {
    let server_only = Method::ServerOnly { class: parsed.get_amqp_class_id(), method: parsed.get_amqp_method_id() };
    let converted = match parsed {
        AMQPClass::Connection(method) => connection_method(method, arguments),
        AMQPClass::Channel(method) => channel_method(method),
        AMQPClass::Access(access::AMQPMethod::Request(_)) => Some(Method::AccessRequest),
        AMQPClass::Access(access::AMQPMethod::RequestOk(_)) => None,
        AMQPClass::Exchange(method) => exchange_method(method, arguments),
        AMQPClass::Queue(method) => queue_method(method, arguments),
        AMQPClass::Basic(method) => basic_method(method, arguments, prefetch_size),
        AMQPClass::Confirm(confirm::AMQPMethod::Select(m)) => Some(Method::ConfirmSelect { no_wait: m.nowait }),
        AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_)) => None,
        AMQPClass::Tx(method) => tx_method(&method),
    };
    converted.unwrap_or(server_only)
}

fn connection_method(method: connection::AMQPMethod, client_properties: Table) -> Option<Method<'static>> {
    use connection::AMQPMethod as M;
    Some(match method {
        M::StartOk(m) => Method::StartOk {
            client_properties,
            mechanism: text(m.mechanism),
            response: bytes(&m.response),
            locale: text(m.locale),
        },
        M::SecureOk(m) => Method::SecureOk { response: bytes(&m.response) },
        M::TuneOk(m) => Method::TuneOk { channel_max: m.channel_max, frame_max: m.frame_max, heartbeat: m.heartbeat },
        M::Open(m) => Method::ConnectionOpen { vhost: text(m.virtual_host) },
        M::Close(m) => Method::ConnectionClose(Close {
            reply_code: m.reply_code,
            reply_text: text(m.reply_text),
            class: m.class_id,
            method: m.method_id,
        }),
        M::CloseOk(_) => Method::ConnectionCloseOk,
        M::Blocked(m) => Method::Blocked { reason: text(m.reason) },
        M::Unblocked(_) => Method::Unblocked,
        M::UpdateSecret(m) => Method::UpdateSecret { new_secret: bytes(&m.new_secret), reason: text(m.reason) },
        M::Start(_) | M::Secure(_) | M::Tune(_) | M::OpenOk(_) | M::UpdateSecretOk(_) => return None,
    })
}

fn channel_method(method: channel::AMQPMethod) -> Option<Method<'static>> {
    use channel::AMQPMethod as M;
    Some(match method {
        M::Open(_) => Method::ChannelOpen,
        M::Flow(m) => Method::ChannelFlow { active: m.active },
        M::FlowOk(m) => Method::ChannelFlowOk { active: m.active },
        M::Close(m) => Method::ChannelClose(Close {
            reply_code: m.reply_code,
            reply_text: text(m.reply_text),
            class: m.class_id,
            method: m.method_id,
        }),
        M::CloseOk(_) => Method::ChannelCloseOk,
        M::OpenOk(_) => return None,
    })
}

fn exchange_method(method: exchange::AMQPMethod, arguments: Table) -> Option<Method<'static>> {
    use exchange::AMQPMethod as M;
    Some(match method {
        M::Declare(m) => Method::ExchangeDeclare(ExchangeDeclare {
            exchange: text(m.exchange),
            kind: text(m.kind),
            passive: m.passive,
            durable: m.durable,
            auto_delete: m.auto_delete,
            internal: m.internal,
            no_wait: m.nowait,
            arguments,
        }),
        M::Delete(m) => {
            Method::ExchangeDelete { exchange: text(m.exchange), if_unused: m.if_unused, no_wait: m.nowait }
        }
        M::Bind(m) => Method::ExchangeBind(ExchangeBinding {
            destination: text(m.destination),
            source: text(m.source),
            routing_key: text(m.routing_key),
            no_wait: m.nowait,
            arguments,
        }),
        M::Unbind(m) => Method::ExchangeUnbind(ExchangeBinding {
            destination: text(m.destination),
            source: text(m.source),
            routing_key: text(m.routing_key),
            no_wait: m.nowait,
            arguments,
        }),
        M::DeclareOk(_) | M::DeleteOk(_) | M::BindOk(_) | M::UnbindOk(_) => return None,
    })
}

fn queue_method(method: queue::AMQPMethod, arguments: Table) -> Option<Method<'static>> {
    use queue::AMQPMethod as M;
    Some(match method {
        M::Declare(m) => Method::QueueDeclare(QueueDeclare {
            queue: text(m.queue),
            passive: m.passive,
            durable: m.durable,
            exclusive: m.exclusive,
            auto_delete: m.auto_delete,
            no_wait: m.nowait,
            arguments,
        }),
        M::Bind(m) => Method::QueueBind(QueueBinding {
            queue: text(m.queue),
            exchange: text(m.exchange),
            routing_key: text(m.routing_key),
            no_wait: m.nowait,
            arguments,
        }),
        M::Unbind(m) => Method::QueueUnbind(QueueBinding {
            queue: text(m.queue),
            exchange: text(m.exchange),
            routing_key: text(m.routing_key),
            no_wait: false,
            arguments,
        }),
        M::Purge(m) => Method::QueuePurge { queue: text(m.queue), no_wait: m.nowait },
        M::Delete(m) => Method::QueueDelete {
            queue: text(m.queue),
            if_unused: m.if_unused,
            if_empty: m.if_empty,
            no_wait: m.nowait,
        },
        M::DeclareOk(_) | M::BindOk(_) | M::UnbindOk(_) | M::PurgeOk(_) | M::DeleteOk(_) => return None,
    })
}

fn basic_method(method: basic::AMQPMethod, arguments: Table, prefetch_size: u32) -> Option<Method<'static>> {
    use basic::AMQPMethod as M;
    Some(match method {
        M::Qos(m) => Method::Qos { prefetch_size, prefetch_count: m.prefetch_count, global: m.global },
        M::Consume(m) => Method::Consume(Consume {
            queue: text(m.queue),
            consumer_tag: text(m.consumer_tag),
            no_local: m.no_local,
            no_ack: m.no_ack,
            exclusive: m.exclusive,
            no_wait: m.nowait,
            arguments,
        }),
        M::Cancel(m) => Method::Cancel { consumer_tag: text(m.consumer_tag), no_wait: m.nowait },
        M::CancelOk(m) => Method::CancelOk { consumer_tag: text(m.consumer_tag) },
        M::Recover(m) => Method::Recover { requeue: m.requeue },
        M::RecoverAsync(m) => Method::RecoverAsync { requeue: m.requeue },
        // `by_hand` has taken those that a client may send.
        M::Publish(_) | M::Get(_) | M::Ack(_) | M::Nack(_) | M::Reject(_) => return None,
        M::QosOk(_) | M::ConsumeOk(_) | M::Return(_) | M::Deliver(_) => return None,
        M::GetOk(_) | M::GetEmpty(_) | M::RecoverOk(_) => return None,
    })
}

fn tx_method(method: &tx::AMQPMethod) -> Option<Method<'static>> {
    use tx::AMQPMethod as M;
    Some(match method {
        M::Select(_) => Method::TxSelect,
        M::Commit(_) => Method::TxCommit,
        M::Rollback(_) => Method::TxRollback,
        M::SelectOk(_) | M::CommitOk(_) | M::RollbackOk(_) => return None,
    })
}

fn text(text: ShortString) -> Arc<str> {
    String::from(text).into()
}

fn bytes(bytes: &LongString) -> Box<[u8]> {
    bytes.as_bytes().into()
}
