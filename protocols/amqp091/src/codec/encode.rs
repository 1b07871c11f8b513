//! The server's methods, appended to an output buffer as whole frames.

mod content;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{AMQPClass, access, basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::ShortString;
use portolan_core::value::Table;

use super::malformed::MAX_REPLY_TEXT;
use super::table;

pub use content::{
    BodyFrame, Content, ack, basic_return, body_frames, deliver, deliver_head, get_ok, header, nack, put_body,
    put_names,
};

/// The frame that says nothing but that we live.
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, super::frame::END];

/// A method that a server sends, other than those that come with every message.
///
/// Texts longer than a short string are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "fields named as in the specification's XML")]
pub enum ServerMethod<'a> {
    /// connection.start for 0-9-1; the table's order may change
    Start { server_properties: &'a Table, mechanisms: &'a str, locales: &'a str },
    /// connection.secure
    Secure { challenge: &'a [u8] },
    /// connection.tune
    Tune { channel_max: u16, frame_max: u32, heartbeat: u16 },
    /// connection.open-ok
    ConnectionOpenOk,
    /// connection.close
    ConnectionClose { reply_code: u16, reply_text: &'a str, class: u16, method: u16 },
    /// connection.close-ok
    ConnectionCloseOk,
    /// connection.blocked
    Blocked { reason: &'a str },
    /// connection.unblocked
    Unblocked,
    /// connection.update-secret-ok
    UpdateSecretOk,
    /// channel.open-ok
    ChannelOpenOk,
    /// channel.flow-ok
    ChannelFlowOk { active: bool },
    /// channel.close
    ChannelClose { reply_code: u16, reply_text: &'a str, class: u16, method: u16 },
    /// channel.close-ok
    ChannelCloseOk,
    /// access.request-ok with ticket 1, as RabbitMQ gives
    AccessRequestOk,
    /// exchange.declare-ok
    ExchangeDeclareOk,
    /// exchange.delete-ok
    ExchangeDeleteOk,
    /// exchange.bind-ok
    ExchangeBindOk,
    /// exchange.unbind-ok
    ExchangeUnbindOk,
    /// queue.declare-ok
    QueueDeclareOk { queue: &'a str, message_count: u32, consumer_count: u32 },
    /// queue.bind-ok
    QueueBindOk,
    /// queue.unbind-ok
    QueueUnbindOk,
    /// queue.purge-ok
    QueuePurgeOk { message_count: u32 },
    /// queue.delete-ok
    QueueDeleteOk { message_count: u32 },
    /// basic.qos-ok
    QosOk,
    /// basic.consume-ok
    ConsumeOk { consumer_tag: &'a str },
    /// basic.cancel, when the queue is gone; the client need not answer
    Cancel { consumer_tag: &'a str },
    /// basic.cancel-ok
    CancelOk { consumer_tag: &'a str },
    /// basic.get-empty
    GetEmpty,
    /// basic.recover-ok
    RecoverOk,
    /// confirm.select-ok
    ConfirmSelectOk,
    /// tx.select-ok
    TxSelectOk,
    /// tx.commit-ok
    TxCommitOk,
    /// tx.rollback-ok
    TxRollbackOk,
}

/// Appends a method frame.
pub fn method(out: &mut Vec<u8>, channel: u16, method: ServerMethod<'_>) {
    let frame = AMQPFrame::Method(channel, to_amq(method));
    // The generator can only fail when its buffer does, and a vector does not.
    if let Ok(written) = gen_frame(&frame)(WriteContext::from(Vec::new())) {
        out.extend_from_slice(&written.write);
    }
}

fn to_amq(method: ServerMethod<'_>) -> AMQPClass {
    use ServerMethod as M;
    match method {
        M::Start { server_properties, mechanisms, locales } => {
            AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
                version_major: 0,
                version_minor: 9,
                server_properties: table::to_amq(server_properties),
                mechanisms: mechanisms.into(),
                locales: locales.into(),
            }))
        }
        M::Secure { challenge } => {
            AMQPClass::Connection(connection::AMQPMethod::Secure(connection::Secure { challenge: challenge.into() }))
        }
        M::Tune { channel_max, frame_max, heartbeat } => {
            AMQPClass::Connection(connection::AMQPMethod::Tune(connection::Tune { channel_max, frame_max, heartbeat }))
        }
        M::ConnectionOpenOk => AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})),
        M::ConnectionClose { reply_code, reply_text, class, method } => {
            AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
                reply_code,
                reply_text: short_string(reply_text),
                class_id: class,
                method_id: method,
            }))
        }
        M::ConnectionCloseOk => AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})),
        M::Blocked { reason } => {
            AMQPClass::Connection(connection::AMQPMethod::Blocked(connection::Blocked { reason: short_string(reason) }))
        }
        M::Unblocked => AMQPClass::Connection(connection::AMQPMethod::Unblocked(connection::Unblocked {})),
        M::UpdateSecretOk => {
            AMQPClass::Connection(connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {}))
        }
        M::ChannelOpenOk => AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})),
        M::ChannelFlowOk { active } => AMQPClass::Channel(channel::AMQPMethod::FlowOk(channel::FlowOk { active })),
        M::ChannelClose { reply_code, reply_text, class, method } => {
            AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
                reply_code,
                reply_text: short_string(reply_text),
                class_id: class,
                method_id: method,
            }))
        }
        M::ChannelCloseOk => AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})),
        M::AccessRequestOk => AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {})),
        M::ExchangeDeclareOk => AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {})),
        M::ExchangeDeleteOk => AMQPClass::Exchange(exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {})),
        M::ExchangeBindOk => AMQPClass::Exchange(exchange::AMQPMethod::BindOk(exchange::BindOk {})),
        M::ExchangeUnbindOk => AMQPClass::Exchange(exchange::AMQPMethod::UnbindOk(exchange::UnbindOk {})),
        M::QueueDeclareOk { queue, message_count, consumer_count } => {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                queue: short_string(queue),
                message_count,
                consumer_count,
            }))
        }
        M::QueueBindOk => AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})),
        M::QueueUnbindOk => AMQPClass::Queue(queue::AMQPMethod::UnbindOk(queue::UnbindOk {})),
        M::QueuePurgeOk { message_count } => {
            AMQPClass::Queue(queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count }))
        }
        M::QueueDeleteOk { message_count } => {
            AMQPClass::Queue(queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count }))
        }
        M::QosOk => AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})),
        M::ConsumeOk { consumer_tag } => AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk {
            consumer_tag: short_string(consumer_tag),
        })),
        M::Cancel { consumer_tag } => AMQPClass::Basic(basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: short_string(consumer_tag),
            nowait: true,
        })),
        M::CancelOk { consumer_tag } => {
            AMQPClass::Basic(basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: short_string(consumer_tag) }))
        }
        M::GetEmpty => AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})),
        M::RecoverOk => AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {})),
        M::ConfirmSelectOk => AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})),
        M::TxSelectOk => AMQPClass::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {})),
        M::TxCommitOk => AMQPClass::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {})),
        M::TxRollbackOk => AMQPClass::Tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {})),
    }
}

/// A text as a short string, cut where it is too long.
pub(crate) fn short_string(text: &str) -> ShortString {
    ShortString::try_new(&text[..text.floor_char_boundary(MAX_REPLY_TEXT)]).unwrap_or_default()
}

/// The part of `text` that fits a short string, ending with a whole character where it is UTF-8.
#[inline]
pub(crate) fn short(text: &[u8]) -> &[u8] {
    if text.len() <= MAX_REPLY_TEXT { text } else { cut(text) }
}

#[cold]
fn cut(text: &[u8]) -> &[u8] {
    // A byte 10xxxxxx goes on with the character before it, so the cut must not come before one.
    let starts_here = |at: &usize| text.get(*at).is_none_or(|octet| octet & 0xC0 != 0x80);
    let end = (0..=MAX_REPLY_TEXT).rev().take(4).find(starts_here).unwrap_or(MAX_REPLY_TEXT);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
