//! Queues with owners, limits and lifetimes; refusals.

use anyhow::bail;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use portolan_conformance::{Outcome, Suite, fresh, same, until, url_as};

use crate::client::{Client, consume, get, publish, publish_to, queue, ready, refused, table, text};

pub(crate) async fn run(suite: &mut Suite) {
    suite.check("exclusive, auto-delete and server-named queues", owners()).await;
    suite.check("TTL, max-length, priority and reject-publish", limits()).await;
    suite.check("purge, delete and counts", counts()).await;
    suite.check("channel errors say why and leave the connection", channel_errors()).await;
    suite.check("wrong password is refused with 403", wrong_password()).await;
    suite.check("many channels", many_channels()).await;
}

const PASSIVE: QueueDeclareOptions =
    QueueDeclareOptions { passive: true, durable: false, exclusive: false, auto_delete: false, nowait: false };

async fn owners() -> Outcome {
    let (owner, other) = (Client::connect().await?, Client::connect().await?);
    let name = queue(&owner.channel, FieldTable::default()).await?;
    if !name.starts_with("amq.gen-") {
        bail!("named {name}");
    }
    refused(405, other.channel.queue_declare(name.as_str().into(), PASSIVE, FieldTable::default()).await)?;
    let brief = fresh("auto");
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    owner.channel.queue_declare(brief.as_str().into(), options, FieldTable::default()).await?;
    let consumer = consume(&owner.channel, &brief, BasicConsumeOptions::default(), FieldTable::default()).await?;
    owner.channel.basic_cancel(consumer.tag(), Default::default()).await?;
    refused(404, owner.channel.queue_declare(brief.as_str().into(), PASSIVE, FieldTable::default()).await)?;
    Ok(())
}

async fn limits() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let short = queue(channel, table([("x-max-length", AMQPValue::LongInt(1))])).await?;
    publish(channel, &short, b"1").await?;
    publish(channel, &short, b"2").await?;
    same(get(channel, &short, true).await?.data.clone(), b"2".to_vec())?;
    let ranked = queue(channel, table([("x-max-priority", AMQPValue::LongInt(3))])).await?;
    publish(channel, &ranked, b"low").await?;
    publish_to(channel, "", &ranked, b"high", BasicProperties::default().with_priority(3)).await?;
    same(get(channel, &ranked, true).await?.data.clone(), b"high".to_vec())?;
    let brief = queue(channel, table([("x-message-ttl", AMQPValue::LongInt(50))])).await?;
    publish(channel, &brief, b"x").await?;
    until("expiry", || async { Ok((ready(channel, &brief).await? == 0).then_some(())) }).await?;
    let full = table([("x-max-length", AMQPValue::LongInt(0)), ("x-overflow", text("reject-publish"))]);
    let full = queue(channel, full).await?;
    same(publish(channel, &full, b"x").await?, Confirmation::Nack(None))
}

async fn counts() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    for _ in 0..3 {
        publish(channel, &queue, b"x").await?;
    }
    let got = get(channel, &queue, false).await?;
    same(got.message_count, 2)?;
    same(channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?, 2)?;
    publish(channel, &queue, b"x").await?;
    same(channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?, 1)
}

async fn channel_errors() -> Outcome {
    let client = Client::connect().await?;
    let channel = client.plain_channel().await?;
    let why = refused(404, channel.queue_declare("missing".into(), PASSIVE, FieldTable::default()).await)?;
    same(why.as_str(), "NOT_FOUND - no queue 'missing' in vhost '/'")?;
    queue(&client.channel, FieldTable::default()).await?;
    Ok(())
}

async fn wrong_password() -> Outcome {
    let result = Connection::connect(&url_as("guest", "wrong"), ConnectionProperties::default()).await;
    let why = refused(403, result)?;
    if !why.starts_with("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN") {
        bail!("{why}");
    }
    Ok(())
}

async fn many_channels() -> Outcome {
    let client = Client::connect().await?;
    let name = queue(&client.channel, FieldTable::default()).await?;
    let mut channels = Vec::new();
    for _ in 0..500 {
        let channel = client.plain_channel().await?;
        publish(&channel, &name, b"x").await?;
        channels.push(channel);
    }
    until("all messages", || async { Ok((ready(&client.channel, &name).await? == 500).then_some(())) }).await
}
