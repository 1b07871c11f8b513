//! Short ways to say the usual things with lapin.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_lite::StreamExt as _;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind};
use portolan_conformance::{DEADLINE, Outcome, until, url};
use tokio::time;

/// A connection and its first channel, which confirms.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel })
    }

    /// A channel without confirms.
    pub(crate) async fn plain_channel(&self) -> anyhow::Result<Channel> {
        Ok(self.connection.create_channel().await?)
    }
}

/// A table from pairs.
pub(crate) fn table<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in pairs {
        table.insert(key.into(), value);
    }
    table
}

/// A long string.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// An exclusive queue named by the server.
pub(crate) async fn queue(channel: &Channel, arguments: FieldTable) -> anyhow::Result<String> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare("".into(), options, arguments).await?.name().to_string())
}

/// A durable queue.
pub(crate) async fn durable(channel: &Channel, name: &str) -> Outcome {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await?;
    Ok(())
}

/// Publishes by the default exchange and waits for the confirm, if the channel confirms.
pub(crate) async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> anyhow::Result<Confirmation> {
    publish_to(channel, "", queue, body, BasicProperties::default().with_delivery_mode(2)).await
}

/// Publishes to an exchange and waits for the confirm.
pub(crate) async fn publish_to(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> anyhow::Result<Confirmation> {
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?;
    Ok(sent.await?)
}

/// basic.get until a message is there.
pub(crate) async fn get(channel: &Channel, queue: &str, no_ack: bool) -> anyhow::Result<BasicGetMessage> {
    until("a message", || async { Ok(channel.basic_get(queue.into(), BasicGetOptions { no_ack }).await?) }).await
}

/// How many messages are ready.
pub(crate) async fn ready(channel: &Channel, queue: &str) -> anyhow::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
}

/// A consumer with a tag of its own.
pub(crate) async fn consume(
    channel: &Channel,
    queue: &str,
    options: BasicConsumeOptions,
    arguments: FieldTable,
) -> anyhow::Result<Consumer> {
    Ok(channel.basic_consume(queue.into(), "".into(), options, arguments).await?)
}

/// The next delivery, within the deadline.
pub(crate) async fn next(consumer: &mut Consumer) -> anyhow::Result<Delivery> {
    let delivery = time::timeout(DEADLINE, consumer.next()).await.context("no delivery")?;
    Ok(delivery.context("the consumer ended")??)
}

/// Fails if the consumer gets anything for a moment.
pub(crate) async fn nothing_more(consumer: &mut Consumer) -> Outcome {
    match time::timeout(Duration::from_millis(200), consumer.next()).await {
        Err(_) => Ok(()),
        Ok(got) => bail!("got {got:?}"),
    }
}

/// Fails unless the broker refused with this code.
pub(crate) fn refused<T>(code: u16, result: lapin::Result<T>) -> anyhow::Result<String> {
    let Err(error) = result else { bail!("not refused") };
    match error.kind() {
        ErrorKind::ProtocolError(why) if why.get_id() == code => Ok(why.get_message().to_string()),
        other => bail!("refused otherwise: {other:?}"),
    }
}
