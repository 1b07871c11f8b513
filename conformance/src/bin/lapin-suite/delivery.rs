//! Publishing, receiving and settling.

use anyhow::{Context as _, bail};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    BasicRecoverOptions, BasicRejectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Confirmation};
use portolan_conformance::{Outcome, Suite, fresh, same};

use crate::client::{Client, consume, get, next, nothing_more, publish, publish_to, queue, ready, table, text};

pub(crate) async fn run(suite: &mut Suite) {
    suite.check("confirmed publish and manual ack", confirmed_publish_and_ack()).await;
    suite.check("thousands of confirms in flight", confirms_in_flight()).await;
    suite.check("nack with requeue, reject into the dead-letter queue", nack_and_dead_letter()).await;
    suite.check("prefetch per consumer and shared", prefetch()).await;
    suite.check("consumer priorities", priorities()).await;
    suite.check("single active consumer hands over", single_active_consumer()).await;
    suite.check("cancel, and cancel by the broker", cancel()).await;
    suite.check("mandatory message without a queue is returned", mandatory_return()).await;
    suite.check("transactions", transactions()).await;
    suite.check("recover", recover()).await;
    suite.check("direct reply-to", direct_reply_to()).await;
    suite.check("big messages", big_messages()).await;
    suite.check("headers of all types come back", headers_of_all_types()).await;
}

async fn confirmed_publish_and_ack() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    same(publish(channel, &queue, b"hello").await?, Confirmation::Ack(None))?;
    let mut consumer = consume(channel, &queue, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let delivery = next(&mut consumer).await?;
    same((delivery.data.as_slice(), delivery.redelivered), (b"hello".as_slice(), false))?;
    delivery.ack(BasicAckOptions::default()).await?;
    same(ready(channel, &queue).await?, 0)
}

async fn confirms_in_flight() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    let mut waiting = Vec::new();
    for i in 0..5000u32 {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let body = i.to_be_bytes();
        waiting.push(channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await?);
    }
    for confirm in waiting {
        same(confirm.await?, Confirmation::Ack(None))?;
    }
    same(ready(channel, &queue).await?, 5000)
}

async fn nack_and_dead_letter() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let dead = queue(channel, FieldTable::default()).await?;
    let arguments = table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&dead))]);
    let queue = queue(channel, arguments).await?;
    publish(channel, &queue, b"x").await?;
    get(channel, &queue, false).await?.nack(BasicNackOptions { multiple: false, requeue: true }).await?;
    let again = get(channel, &queue, false).await?;
    same(again.redelivered, true)?;
    again.reject(BasicRejectOptions { requeue: false }).await?;
    let letter = get(channel, &dead, true).await?;
    let headers = letter.properties.headers().as_ref().context("no headers")?;
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { bail!("no x-death") };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else { bail!("x-death is empty") };
    same(death.inner().get("reason"), Some(&text("rejected")))?;
    same(death.inner().get("count"), Some(&AMQPValue::LongLongInt(1)))
}

async fn prefetch() -> Outcome {
    let client = Client::connect().await?;
    for shared in [false, true] {
        let channel = client.plain_channel().await?;
        let queue = queue(&channel, FieldTable::default()).await?;
        channel.basic_qos(2, BasicQosOptions { global: shared }).await?;
        let mut one = consume(&channel, &queue, BasicConsumeOptions::default(), FieldTable::default()).await?;
        let mut two = consume(&channel, &queue, BasicConsumeOptions::default(), FieldTable::default()).await?;
        for i in 0..10u8 {
            publish(&client.channel, &queue, &[i]).await?;
        }
        let held = next(&mut one).await?;
        next(&mut two).await?;
        if !shared {
            next(&mut one).await?;
            next(&mut two).await?;
        }
        nothing_more(&mut one).await?;
        nothing_more(&mut two).await?;
        held.ack(BasicAckOptions::default()).await?;
        if shared {
            // Whose turn it is, is the broker's to decide.
            futures_lite::future::or(async { next(&mut one).await }, async { next(&mut two).await }).await?;
        } else {
            next(&mut one).await?;
        }
        channel.close(200, "done".into()).await?;
    }
    Ok(())
}

async fn priorities() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    let arguments = table([("x-priority", AMQPValue::LongInt(5))]);
    let mut low = consume(channel, &queue, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let mut high = consume(channel, &queue, BasicConsumeOptions::default(), arguments).await?;
    publish(channel, &queue, b"x").await?;
    next(&mut high).await?;
    nothing_more(&mut low).await
}

async fn single_active_consumer() -> Outcome {
    let (first, second) = (Client::connect().await?, Client::connect().await?);
    let name = fresh("sac");
    let arguments = table([("x-single-active-consumer", AMQPValue::Boolean(true))]);
    second.channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), arguments).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut active = consume(&first.channel, &name, options, FieldTable::default()).await?;
    let mut waiting = consume(&second.channel, &name, options, FieldTable::default()).await?;
    publish(&second.channel, &name, b"1").await?;
    next(&mut active).await?;
    nothing_more(&mut waiting).await?;
    first.connection.close(200, "done".into()).await?;
    publish(&second.channel, &name, b"2").await?;
    same(next(&mut waiting).await?.data, b"2".to_vec())?;
    second.channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    Ok(())
}

async fn cancel() -> Outcome {
    use futures_lite::StreamExt as _;
    let client = Client::connect().await?;
    let name = fresh("cancel");
    client.channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    let consumer = consume(&client.channel, &name, BasicConsumeOptions::default(), FieldTable::default()).await?;
    client.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    let mut told = consume(&client.channel, &name, BasicConsumeOptions::default(), FieldTable::default()).await?;
    client.plain_channel().await?.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    let ended = tokio::time::timeout(portolan_conformance::DEADLINE, told.next()).await.context("not told")?;
    if let Some(Ok(delivery)) = ended {
        bail!("got {delivery:?}");
    }
    Ok(())
}

async fn mandatory_return() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default();
    let sent = channel.basic_publish("".into(), fresh("nowhere").into(), options, b"back", properties).await?;
    let Confirmation::Ack(Some(returned)) = sent.await? else { bail!("not returned before the ack") };
    same((returned.reply_code, returned.data.as_slice()), (312, b"back".as_slice()))
}

async fn transactions() -> Outcome {
    let client = Client::connect().await?;
    let channel = client.plain_channel().await?;
    let queue = queue(&client.channel, FieldTable::default()).await?;
    channel.tx_select().await?;
    publish(&channel, &queue, b"dropped").await?;
    channel.tx_rollback().await?;
    publish(&channel, &queue, b"kept").await?;
    same(ready(&client.channel, &queue).await?, 0)?;
    channel.tx_commit().await?;
    same(get(&client.channel, &queue, true).await?.data.clone(), b"kept".to_vec())
}

async fn recover() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    publish(channel, &queue, b"x").await?;
    get(channel, &queue, false).await?;
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    same(get(channel, &queue, true).await?.redelivered, true)
}

async fn direct_reply_to() -> Outcome {
    let (client, server) = (Client::connect().await?, Client::connect().await?);
    let requests = queue(&server.channel, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut replies = consume(&client.channel, "amq.rabbitmq.reply-to", options, FieldTable::default()).await?;
    let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into());
    publish_to(&client.channel, "", &requests, b"ping", properties).await?;
    let request = get(&server.channel, &requests, true).await?;
    let address = request.properties.reply_to().as_ref().context("no reply-to")?.to_string();
    publish_to(&server.channel, "", &address, b"pong", BasicProperties::default()).await?;
    same(next(&mut replies).await?.data, b"pong".to_vec())
}

async fn big_messages() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    for size in [1 << 20, 20 << 20] {
        let data: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
        publish(channel, &queue, &data).await?;
        if get(channel, &queue, true).await?.data != data {
            bail!("{size} bytes changed on their way");
        }
    }
    Ok(())
}

async fn headers_of_all_types() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let queue = queue(channel, FieldTable::default()).await?;
    let mut list = FieldArray::default();
    list.push(AMQPValue::Void);
    list.push(AMQPValue::FieldTable(table([("deep", AMQPValue::Boolean(true))])));
    let headers = table([
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-5)),
        ("u8", AMQPValue::ShortShortUInt(250)),
        ("i16", AMQPValue::ShortInt(-500)),
        ("u16", AMQPValue::ShortUInt(50000)),
        ("i32", AMQPValue::LongInt(-70000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("f32", AMQPValue::Float(1.5)),
        ("f64", AMQPValue::Double(2.5)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("string", text("grüße")),
        ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("void", AMQPValue::Void),
        ("list", AMQPValue::FieldArray(list)),
        ("table", AMQPValue::FieldTable(table([("k", AMQPValue::LongInt(1))]))),
    ]);
    let properties = BasicProperties::default().with_headers(headers.clone()).with_type("t".into()).with_priority(3);
    publish_to(channel, "", &queue, b"", properties.clone()).await?;
    let got = get(channel, &queue, true).await?;
    same(&got.properties, &properties)
}
