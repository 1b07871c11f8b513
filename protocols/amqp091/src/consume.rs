//! Receiving: qos, consume, cancel, get, and the hidden queue behind direct reply-to.

use std::sync::Arc;

use portolan_core::consumer::Consumer;
use portolan_core::delivery::{ConsumerRef, SharedCredit};
use portolan_core::engine::Ask;
use portolan_core::value::Table;

use crate::channel::ChannelConsumer;
use crate::codec::encode::{self, Content, ServerMethod};
use crate::codec::method::Consume;
use crate::convert;
use crate::engine::Connection;
use crate::names;
use crate::refusal::{Failure, type_name};

/// The name that clients consume from and publish as reply-to for direct replies.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

type Done = Result<(), Failure>;

impl Connection {
    pub(crate) fn qos(&mut self, key: u32, prefetch_size: u32, prefetch_count: u16, global: bool) -> Done {
        if prefetch_size != 0 {
            return Err(Failure::connection(540, format!("prefetch_size!=0 ({prefetch_size})")));
        }
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        let number = channel.number;
        if global {
            self.share_window(key, prefetch_count);
        } else {
            channel.prefetch = prefetch_count;
        }
        self.say(number, ServerMethod::QosOk);
        Ok(())
    }

    /// Gives all consumers of a channel one window, those that are there already included.
    fn share_window(&mut self, key: u32, limit: u16) {
        let Some(channel) = self.channels.get_mut(key as usize) else { return };
        let consumers: Vec<ConsumerRef> =
            channel.consumers.values().filter(|one| !one.no_ack).map(|one| one.at).collect();
        if let Some(shared) = &channel.shared {
            shared.set_limit(limit.into());
        } else {
            if limit == 0 {
                return;
            }
            let shared = SharedCredit::new(limit.into());
            channel.shared = Some(Arc::clone(&shared));
            // While they are being moved they may deliver: what is held is counted first, so the window can be
            // exceeded by what is on its way, and never counts too little for long.
            let session = channel.session;
            let held = self.outbox.lock().sessions.session(session).map_or(0, |one| one.tags.with_consumers());
            shared.hold(held);
            for consumer in &consumers {
                let shared = Arc::clone(&shared);
                self.broker.in_queue(consumer.queue, self.now, &mut self.effects, |queue, _| {
                    queue.share_credit(consumer.key, shared);
                });
            }
        }
        self.broker.resume(&consumers, self.now, &mut self.effects);
        self.broker.carry_out(&mut self.effects, self.now);
    }

    pub(crate) fn consume(&mut self, key: u32, consume: &Consume) -> Done {
        // Tags of consumers whose queues are gone are free again.
        self.drop_cancelled();
        let Some(channel) = self.channels.get(key as usize) else { return Ok(()) };
        let (number, session, prefetch) = (channel.number, channel.session, channel.prefetch);
        let tag: Arc<str> = match consume.consumer_tag.is_empty() {
            true => names::generated("amq.ctag-").into(),
            false => Arc::clone(&consume.consumer_tag),
        };
        if channel.consumers.contains_key(&tag) {
            return Err(Failure::connection(530, format!("attempt to reuse consumer tag '{tag}'")));
        }
        if channel.consumers.len() >= self.settings.consumers {
            let most = self.settings.consumers;
            return Err(Failure::connection(530, format!("reached maximum ({most}) of consumers per channel")));
        }
        if &*consume.queue == REPLY_TO {
            return self.consume_replies(key, &tag, consume);
        }
        let queue = self.queue_name(key, &consume.queue)?;
        let consumer = Consumer {
            recipient: Arc::clone(&self.recipient),
            session,
            number: self.outbox.lock().sessions.add_consumer(Arc::clone(&tag)),
            settled: consume.no_ack,
            priority: self.priority(&queue, &consume.arguments)?,
            credit: (prefetch > 0).then(|| prefetch.into()),
            shared: self.channels.get(key as usize).and_then(|one| one.shared.clone()).filter(|_| !consume.no_ack),
            exclusive: consume.exclusive,
        };
        let ok = (!consume.no_wait).then_some(number);
        self.subscribe(key, &queue, &tag, consumer, ok)
    }

    /// Adds the consumer to its queue; consume-ok is written before the first delivery.
    fn subscribe(&mut self, key: u32, queue: &str, tag: &Arc<str>, consumer: Consumer, ok: Option<u16>) -> Done {
        let (number, no_ack) = (consumer.number, consumer.settled);
        let outbox = Arc::clone(&self.outbox);
        let ready = |_| {
            if let Some(channel) = ok {
                encode::method(&mut outbox.lock().out().bytes, channel, ServerMethod::ConsumeOk { consumer_tag: tag });
            }
        };
        let added =
            self.with_caller(|b, vhost, caller, effects| b.subscribe(vhost, queue, consumer, caller, effects, ready));
        match added.ok_or_else(|| Failure::connection(504, "expected 'connection.open'"))? {
            Ok(at) => {
                if let Some(channel) = self.channels.get_mut(key as usize) {
                    channel.consumers.insert(Arc::clone(tag), ChannelConsumer { at, number, no_ack });
                }
                self.broker.carry_out(&mut self.effects, self.now);
                Ok(())
            }
            Err(refusal) => {
                self.outbox.lock().sessions.remove_consumer(number);
                Err(refusal.into())
            }
        }
    }

    fn priority(&self, queue: &str, arguments: &Table) -> Result<i32, Failure> {
        let vhost = self.vhost.as_ref().map(|vhost| Arc::clone(&vhost.name)).unwrap_or_default();
        let fault = |name: &str, why: String| {
            Err(Failure::channel(406, format!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}'{why}")))
        };
        if arguments.get("x-stream-offset").is_some() {
            return fault("x-stream-offset", " of queue type rabbit_classic_queue".to_owned());
        }
        match arguments.get("x-priority") {
            None => Ok(0),
            Some(value) => match value.as_integer() {
                Some(priority) => Ok(priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32),
                None => fault("x-priority", format!(": \"expected integer, got {}\"", type_name(value))),
            },
        }
    }

    /// Direct reply-to: behind the pseudo-queue there is a hidden one that only lives as long as its consumer, and
    /// whose name nobody can guess.
    fn consume_replies(&mut self, key: u32, tag: &Arc<str>, consume: &Consume) -> Done {
        if !consume.no_ack {
            return Err(Failure::channel(406, "reply consumer cannot acknowledge"));
        }
        let Some(channel) = self.channels.get(key as usize) else { return Ok(()) };
        if channel.reply_queue.is_some() {
            return Err(Failure::channel(406, "reply consumer already set"));
        }
        let (number, session) = (channel.number, channel.session);
        let name: Arc<str> = names::generated("amq.rabbitmq.reply-to.").into();
        let made = self.with_caller(|b, vhost, caller, effects| b.make_reply_queue(vhost, &name, caller.now, effects));
        made.ok_or_else(|| Failure::connection(504, "expected 'connection.open'"))?;
        let consumer = Consumer {
            recipient: Arc::clone(&self.recipient),
            session,
            number: self.outbox.lock().sessions.add_consumer(Arc::clone(tag)),
            settled: true,
            priority: 0,
            credit: None,
            shared: None,
            exclusive: false,
        };
        if let Some(channel) = self.channels.get_mut(key as usize) {
            channel.reply_queue = Some(Arc::clone(&name));
        }
        let ok = (!consume.no_wait).then_some(number);
        self.subscribe(key, &name, tag, consumer, ok)
    }

    pub(crate) fn cancel(&mut self, key: u32, tag: &Arc<str>, no_wait: bool) -> Done {
        self.drop_cancelled();
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        let number = channel.number;
        if let Some(consumer) = channel.consumers.remove(tag) {
            if channel.consumers.is_empty() {
                channel.reply_queue = None;
            }
            self.broker.unsubscribe(consumer.at, self.now, &mut self.effects);
            self.outbox.lock().sessions.remove_consumer(consumer.number);
            self.broker.carry_out(&mut self.effects, self.now);
        }
        if !no_wait {
            self.say(number, ServerMethod::CancelOk { consumer_tag: tag });
        }
        Ok(())
    }

    pub(crate) fn get(&mut self, key: u32, name: &str, no_ack: bool) -> Done {
        let queue = self.queue_name(key, name)?;
        let Some(channel) = self.channels.get(key as usize) else { return Ok(()) };
        let (number, session) = (channel.number, channel.session);
        if !no_ack {
            self.may_hold_another(session)?;
        }
        let got = self.with_caller(|b, vhost, caller, effects| b.get(vhost, &queue, no_ack, caller, effects));
        let Some(got) = got.ok_or_else(|| Failure::connection(504, "expected 'connection.open'"))?? else {
            self.broker.counters.delivered.get_empty.add(1);
            self.say(number, ServerMethod::GetEmpty);
            return Ok(());
        };
        let delivered = &self.broker.counters.delivered;
        if no_ack {
            delivered.get_auto.add(1)
        } else {
            delivered.get_manual.add(1)
        }
        let message = &got.message;
        let mut names = Vec::new();
        encode::put_names(&mut names, message.exchange(), message.routing_key());
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        let frame_max = deliveries.frame_max();
        let properties = &*convert::outgoing(&self.broker.dialects, message, got.returns, frame_max);
        let content = Content { names: &names, properties, body: message.body() };
        let tag = deliveries.tag_for_get(session, got.settle, self.now);
        encode::get_ok(&mut out.bytes, number, tag, got.redelivered, got.remaining as u32, content, frame_max);
        Ok(())
    }

    /// Whether a channel may fetch one more that it has to settle. Consumers wait for room, but a client that fetches
    /// waits for an answer, and "empty" would be a lie.
    fn may_hold_another(&self, session: u32) -> Done {
        let held = self.outbox.lock().sessions.session(session).map_or(0, |one| one.tags.count());
        let most = self.settings.unsettled;
        if held < most {
            return Ok(());
        }
        Err(Failure::channel(
            406,
            format!("{held} deliveries of this channel are unsettled, the most allowed is {most}"),
        ))
    }

    /// Forgets consumers whose queues are gone.
    pub(crate) fn drop_cancelled(&mut self) {
        let cancelled = std::mem::take(&mut self.outbox.lock().sessions.cancelled);
        for (session, number) in cancelled {
            for (_, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.session == session) {
                channel.consumers.retain(|_, consumer| consumer.number != number);
            }
            self.outbox.lock().sessions.remove_consumer(number);
        }
    }

    /// Closes a channel whose oldest delivery has been unsettled for too long.
    pub(crate) fn check_consumer_timeout(&mut self) -> Option<Ask> {
        let timeout = self.settings.consumer_timeout;
        let (at, number) = self.outbox.lock().sessions.oldest()?;
        if timeout == 0 || at + timeout > self.now {
            return None;
        }
        let key = self.key_of(number)?;
        let text = format!(
            "delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout} ms. This timeout \
             value can be configured, see consumers doc guide to learn more"
        );
        let ask = self.refuse(key, (0, 0), &Failure::channel(406, text));
        self.outbox.flush();
        ask
    }
}
