//! The exchange and queue classes, and the dispatch of a channel's methods.

use std::sync::Arc;

use portolan_core::catalogue::Binding;
use portolan_core::exchange::{ExchangeDefinition, ExchangeKind};
use portolan_core::queues::{Declared, QueueWish};
use portolan_core::refusal::{QueueKind, Refusal};
use portolan_core::value::{Table, Value};

use crate::channel::Mode;
use crate::codec::encode::ServerMethod;
use crate::codec::method::{ExchangeBinding, ExchangeDeclare, Method, QueueBinding, QueueDeclare};
use crate::consume::REPLY_TO;
use crate::engine::Connection;
use crate::publish::Incoming;
use crate::refusal::Failure;

type Done = Result<(), Failure>;

const QUEUE_TYPE: &str = "x-queue-type";

/// Names lose carriage returns and line feeds, as RabbitMQ 3.10 does it.
fn clean(name: &Arc<str>) -> Arc<str> {
    if name.contains(['\r', '\n']) { name.replace(['\r', '\n'], "").into() } else { Arc::clone(name) }
}

/// The connection has no vhost yet: cannot happen while it is running.
fn no_vhost() -> Failure {
    Failure::connection(504, "expected 'connection.open'")
}

impl Connection {
    /// Carries out a method on an open channel.
    pub(crate) fn channel_method(&mut self, key: u32, method: Method<'_>, ids: (u16, u16)) -> Done {
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        let number = channel.number;
        match method {
            Method::Publish(args) if args.immediate => Err(Failure::connection(540, "immediate=true")),
            Method::Publish(args) => {
                channel.incoming = Some(Incoming::new(&args));
                Ok(())
            }
            Method::StrayContent { .. } => {
                channel.incoming = Some(Incoming::stray());
                Ok(())
            }
            Method::Ack(ack) => self.acknowledge(key, ack, portolan_core::delivery::Outcome::Accepted),
            Method::Nack(nack) | Method::Reject(nack) => {
                self.acknowledge(key, nack, crate::settle::refused(nack.requeue))
            }
            Method::Recover { requeue } | Method::RecoverAsync { requeue } => {
                self.recover(key, requeue)?;
                if ids.1 == 110 {
                    self.say(number, ServerMethod::RecoverOk);
                }
                Ok(())
            }
            Method::Qos { prefetch_size, prefetch_count, global } => {
                self.qos(key, prefetch_size, prefetch_count, global)
            }
            Method::Consume(consume) => self.consume(key, &consume),
            Method::Cancel { consumer_tag, no_wait } => self.cancel(key, &consumer_tag, no_wait),
            Method::CancelOk { .. } | Method::ChannelCloseOk | Method::ChannelFlowOk { .. } => Ok(()),
            Method::Get(get) => self.get(key, get.queue, get.no_ack),
            Method::ConfirmSelect { no_wait } => self.confirm_select(key, no_wait),
            Method::TxSelect => self.tx_select(key),
            Method::TxCommit => self.tx_commit(key),
            Method::TxRollback => self.tx_rollback(key),
            Method::ChannelOpen => Err(Failure::connection(504, "second 'channel.open' seen")),
            Method::ChannelFlow { active: true } => {
                self.say(number, ServerMethod::ChannelFlowOk { active: true });
                Ok(())
            }
            Method::ChannelFlow { active: false } => Err(Failure::connection(540, "active=false")),
            Method::ChannelClose(close) => {
                tracing::debug!(channel = number, code = close.reply_code, "client closes channel");
                self.give_back_channel(key);
                self.forget_channel(key);
                self.say(number, ServerMethod::ChannelCloseOk);
                Ok(())
            }
            Method::AccessRequest => {
                self.say(number, ServerMethod::AccessRequestOk);
                Ok(())
            }
            Method::ExchangeDeclare(declare) => self.exchange_declare(number, declare),
            Method::ExchangeDelete { exchange, if_unused, no_wait } => {
                let deleted = self.with_caller(|b, v, caller, _| b.delete_exchange(v, &exchange, if_unused, caller));
                let durable = deleted.ok_or_else(no_vhost)??;
                self.answer(number, no_wait, ServerMethod::ExchangeDeleteOk, durable)
            }
            Method::ExchangeBind(bind) => self.exchange_bind(number, bind, true),
            Method::ExchangeUnbind(bind) => self.exchange_bind(number, bind, false),
            Method::QueueDeclare(declare) => self.queue_declare(key, declare),
            Method::QueueBind(bind) => self.queue_bind(key, bind, true),
            Method::QueueUnbind(bind) => self.queue_bind(key, bind, false),
            Method::QueuePurge { queue, no_wait } => {
                let queue = self.queue_name(key, &queue)?;
                let purged = self.with_caller(|b, v, caller, effects| b.purge_queue(v, &queue, caller, effects));
                let count = purged.ok_or_else(no_vhost)??;
                self.answer(number, no_wait, ServerMethod::QueuePurgeOk { message_count: count as u32 }, None)
            }
            Method::QueueDelete { queue, if_unused, if_empty, no_wait } => {
                let queue = self.queue_name(key, &queue)?;
                let deleted = self.with_caller(|b, v, caller, effects| {
                    b.delete_queue(v, &queue, if_unused, if_empty, caller, effects)
                });
                let (count, durable) = deleted.ok_or_else(no_vhost)??;
                self.exclusive.retain(|name| *name != queue);
                let ok = ServerMethod::QueueDeleteOk { message_count: count as u32 };
                self.answer(number, no_wait, ok, durable)
            }
            Method::ServerOnly { .. } => Err(Failure::connection(503, "unimplemented method")),
            // Methods of the connection class belong on channel 0.
            _ => Err(Failure::connection(504, "expected 'channel.open'")),
        }
    }

    /// Sends the answer unless the client wants none. Errors come all the same.
    fn answer(&mut self, number: u16, no_wait: bool, method: ServerMethod<'_>, durable: Option<u64>) -> Done {
        if !no_wait {
            self.say_durably(number, method, durable);
        }
        Ok(())
    }

    /// The queue that a method means: an empty name stands for the one declared last on the channel.
    pub(crate) fn queue_name(&self, key: u32, name: &str) -> Result<Arc<str>, Failure> {
        if !name.is_empty() {
            return Ok(clean(&name.into()));
        }
        let current = self.channels.get(key as usize).and_then(|channel| channel.current_queue.clone());
        current.ok_or_else(|| Failure::channel(404, "no previously declared queue"))
    }

    fn exchange_declare(&mut self, number: u16, declare: ExchangeDeclare) -> Done {
        let name = clean(&declare.exchange);
        if declare.passive {
            let found = self.with_caller(|broker, vhost, _, _| broker.find_exchange(vhost, &name));
            found.ok_or_else(no_vhost)??;
            return self.answer(number, declare.no_wait, ServerMethod::ExchangeDeclareOk, None);
        }
        let definition = ExchangeDefinition {
            kind: ExchangeKind::parse(&declare.kind)?,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments,
        };
        let declared = self.with_caller(|b, v, caller, _| b.declare_exchange(v, &name, definition, caller));
        let durable = declared.ok_or_else(no_vhost)??;
        self.answer(number, declare.no_wait, ServerMethod::ExchangeDeclareOk, durable)
    }

    fn exchange_bind(&mut self, number: u16, bind: ExchangeBinding, bound: bool) -> Done {
        let binding = Binding {
            source: clean(&bind.source),
            to_queue: false,
            destination: clean(&bind.destination),
            key: bind.routing_key.as_bytes().into(),
            arguments: bind.arguments,
        };
        let done = self.with_caller(|broker, vhost, caller, _| broker.bind(vhost, binding, bound, caller));
        let durable = done.ok_or_else(no_vhost)??;
        let ok = if bound { ServerMethod::ExchangeBindOk } else { ServerMethod::ExchangeUnbindOk };
        self.answer(number, bind.no_wait, ok, durable)
    }

    fn queue_bind(&mut self, key: u32, bind: QueueBinding, bound: bool) -> Done {
        let destination = self.queue_name(key, &bind.queue)?;
        // With neither queue nor key named, the key is the queue's name.
        let no_names = bind.queue.is_empty() && bind.routing_key.is_empty();
        let routing_key = if no_names { Arc::clone(&destination) } else { bind.routing_key };
        let binding = Binding {
            source: clean(&bind.exchange),
            to_queue: true,
            destination,
            key: routing_key.as_bytes().into(),
            arguments: bind.arguments,
        };
        let done = self.with_caller(|broker, vhost, caller, _| broker.bind(vhost, binding, bound, caller));
        let durable = done.ok_or_else(no_vhost)??;
        let number = self.channels.get(key as usize).map_or(0, |channel| channel.number);
        let ok = if bound { ServerMethod::QueueBindOk } else { ServerMethod::QueueUnbindOk };
        self.answer(number, bind.no_wait, ok, durable)
    }

    fn queue_declare(&mut self, key: u32, declare: QueueDeclare) -> Done {
        self.broker.counters.objects.queues_declared.add(1);
        let generated = declare.queue.is_empty() && !declare.passive;
        let name = if generated { crate::names::generated("amq.gen-").into() } else { clean(&declare.queue) };
        let number = self.channels.get(key as usize).map_or(0, |channel| channel.number);
        let declared = if &*name == REPLY_TO {
            // The pseudo-queue is always there.
            Ok(Declared { ready: 0, consumers: 1, durable: None, created: false })
        } else if declare.passive {
            let found = self.with_caller(|b, vhost, caller, effects| b.inspect_queue(vhost, &name, caller, effects));
            found.ok_or_else(no_vhost)?
        } else {
            self.declare(&name, generated, &declare)
        };
        let declared = declared.map_err(Failure::from)?;
        if declared.created && declare.exclusive {
            self.exclusive.push(Arc::clone(&name));
        }
        if let Some(channel) = self.channels.get_mut(key as usize) {
            channel.current_queue = Some(Arc::clone(&name));
        }
        let ok = ServerMethod::QueueDeclareOk {
            queue: &name,
            message_count: declared.ready as u32,
            consumer_count: declared.consumers as u32,
        };
        self.answer(number, declare.no_wait, ok, declared.durable)
    }

    fn declare(&mut self, name: &str, generated: bool, declare: &QueueDeclare) -> Result<Declared, Refusal> {
        let wish = QueueWish {
            name,
            generated,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: self.with_type(declare),
        };
        let declared =
            self.with_caller(|broker, vhost, caller, effects| broker.declare_queue(vhost, wish, caller, effects));
        declared.unwrap_or(Err(Refusal::DefaultExchange))
    }

    /// The arguments of a declaration, with the vhost's default type if it names none. The default counts only where a
    /// queue of that type could be as it is declared, and then also for equivalence, as in RabbitMQ.
    fn with_type(&self, declare: &QueueDeclare) -> Table {
        let mut arguments = declare.arguments.clone();
        let named = arguments.get(QUEUE_TYPE).is_some_and(|value| !matches!(value.as_text(), Some("" | "undefined")));
        let default = self.vhost.as_ref().and_then(|vhost| self.settings.default_types.get(&*vhost.name));
        let possible = declare.durable && !declare.exclusive && !declare.auto_delete;
        if default == Some(&QueueKind::Quorum) && possible && !named {
            arguments.set(QUEUE_TYPE, Value::text("quorum"));
        }
        arguments
    }

    fn confirm_select(&mut self, key: u32, no_wait: bool) -> Done {
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        match channel.mode {
            Mode::Plain => channel.mode = Mode::Confirm(0),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => return Err(Failure::channel(406, "cannot switch from tx to confirm mode")),
        }
        let number = channel.number;
        self.answer(number, no_wait, ServerMethod::ConfirmSelectOk, None)
    }
}
