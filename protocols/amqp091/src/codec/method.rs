//! The methods that a client may send.

mod decode;
mod hot;
mod shape;

use std::sync::Arc;

use portolan_core::value::Table;

use super::Malformed;

pub use decode::decode;
pub use hot::{Acknowledgement, Get, PublishArgs, ack, get, nack, publish, reject};

/// Why the payload of a method frame is no method that we can act on. It closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodError {
    /// Class to name in the close, 0 where RabbitMQ names none.
    pub class: u16,
    /// Method to name in the close, 0 where RabbitMQ names none.
    pub method: u16,
    /// What is wrong.
    pub fault: Malformed,
}

/// connection.close and channel.close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Clients send anything here, 0 included.
    pub reply_code: u16,
    /// For the log.
    pub reply_text: Arc<str>,
    /// Class of the method that failed, or 0.
    pub class: u16,
    /// The method that failed, or 0.
    pub method: u16,
}

/// exchange.declare.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDeclare {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Its type.
    pub kind: Arc<str>,
    /// Only ask whether it exists.
    pub passive: bool,
    /// It survives a restart.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// Send no declare-ok.
    pub no_wait: bool,
    /// Arguments in order.
    pub arguments: Table,
}

/// exchange.bind and exchange.unbind.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeBinding {
    /// The exchange that receives.
    pub destination: Arc<str>,
    /// The exchange that gives.
    pub source: Arc<str>,
    /// What is matched.
    pub routing_key: Arc<str>,
    /// Send no reply.
    pub no_wait: bool,
    /// Arguments, part of the binding's identity.
    pub arguments: Table,
}

/// queue.declare.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDeclare {
    /// Name of the queue; empty for one that the server names.
    pub queue: Arc<str>,
    /// Only ask whether it exists.
    pub passive: bool,
    /// It survives a restart.
    pub durable: bool,
    /// It belongs to this connection.
    pub exclusive: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// Send no declare-ok.
    pub no_wait: bool,
    /// Arguments in order.
    pub arguments: Table,
}

/// queue.bind and queue.unbind.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueBinding {
    /// The queue, or the channel's current one when empty.
    pub queue: Arc<str>,
    /// The exchange.
    pub exchange: Arc<str>,
    /// What is matched.
    pub routing_key: Arc<str>,
    /// Send no reply; queue.unbind has no such bit.
    pub no_wait: bool,
    /// Arguments, part of the binding's identity.
    pub arguments: Table,
}

/// basic.consume.
#[derive(Clone, Debug, PartialEq)]
pub struct Consume {
    /// The queue, or the channel's current one when empty.
    pub queue: Arc<str>,
    /// Name of the consumer; empty for one that the server names.
    pub consumer_tag: Arc<str>,
    /// Not this connection's own messages.
    pub no_local: bool,
    /// Deliveries count as acknowledged at once.
    pub no_ack: bool,
    /// No other consumer on the queue.
    pub exclusive: bool,
    /// Send no consume-ok.
    pub no_wait: bool,
    /// Arguments in order.
    pub arguments: Table,
}

/// One method. Those that come with every message borrow from the frame.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "fields named as in the specification's XML")]
pub enum Method<'a> {
    /// connection.start-ok
    StartOk { client_properties: Table, mechanism: Arc<str>, response: Box<[u8]>, locale: Arc<str> },
    /// connection.secure-ok
    SecureOk { response: Box<[u8]> },
    /// connection.tune-ok
    TuneOk { channel_max: u16, frame_max: u32, heartbeat: u16 },
    /// connection.open; the reserved fields say nothing
    ConnectionOpen { vhost: Arc<str> },
    /// connection.close
    ConnectionClose(Close),
    /// connection.close-ok
    ConnectionCloseOk,
    /// connection.blocked
    Blocked { reason: Arc<str> },
    /// connection.unblocked
    Unblocked,
    /// connection.update-secret
    UpdateSecret { new_secret: Box<[u8]>, reason: Arc<str> },
    /// channel.open
    ChannelOpen,
    /// channel.flow
    ChannelFlow { active: bool },
    /// channel.flow-ok
    ChannelFlowOk { active: bool },
    /// channel.close
    ChannelClose(Close),
    /// channel.close-ok
    ChannelCloseOk,
    /// access.request of old clients; what it asks for says nothing
    AccessRequest,
    /// exchange.declare
    ExchangeDeclare(ExchangeDeclare),
    /// exchange.delete
    ExchangeDelete { exchange: Arc<str>, if_unused: bool, no_wait: bool },
    /// exchange.bind
    ExchangeBind(ExchangeBinding),
    /// exchange.unbind
    ExchangeUnbind(ExchangeBinding),
    /// queue.declare
    QueueDeclare(QueueDeclare),
    /// queue.bind
    QueueBind(QueueBinding),
    /// queue.unbind
    QueueUnbind(QueueBinding),
    /// queue.purge
    QueuePurge { queue: Arc<str>, no_wait: bool },
    /// queue.delete
    QueueDelete { queue: Arc<str>, if_unused: bool, if_empty: bool, no_wait: bool },
    /// basic.qos
    Qos { prefetch_size: u32, prefetch_count: u16, global: bool },
    /// basic.consume
    Consume(Consume),
    /// basic.cancel
    Cancel { consumer_tag: Arc<str>, no_wait: bool },
    /// basic.cancel-ok, the answer to our own basic.cancel
    CancelOk { consumer_tag: Arc<str> },
    /// basic.publish
    Publish(PublishArgs<'a>),
    /// basic.get
    Get(Get<'a>),
    /// basic.ack
    Ack(Acknowledgement),
    /// basic.nack
    Nack(Acknowledgement),
    /// basic.reject
    Reject(Acknowledgement),
    /// basic.recover
    Recover { requeue: bool },
    /// basic.recover-async
    RecoverAsync { requeue: bool },
    /// confirm.select
    ConfirmSelect { no_wait: bool },
    /// tx.select
    TxSelect,
    /// tx.commit
    TxCommit,
    /// tx.rollback
    TxRollback,
    /// basic.deliver, basic.return or basic.get-ok: content that only a server sends. RabbitMQ 3.10 takes header
    /// and body after it and throws all of it away
    StrayContent { class: u16, method: u16 },
    /// Any other method that only a server sends: 503 `COMMAND_INVALID - unimplemented method`
    ServerOnly { class: u16, method: u16 },
}

#[cfg(test)]
mod tests;
