//! Exchanges of every type and the bindings between them.

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use portolan_conformance::{Outcome, Suite, fresh, same};

use crate::client::{Client, get, publish_to, queue, table, text};

pub(crate) async fn run(suite: &mut Suite) {
    suite.check("exchanges of the four types", four_types()).await;
    suite.check("exchange to exchange and alternate exchange", chained()).await;
}

async fn exchange(channel: &Channel, kind: ExchangeKind, arguments: FieldTable) -> anyhow::Result<String> {
    let name = fresh("x");
    channel.exchange_declare(name.as_str().into(), kind, ExchangeDeclareOptions::default(), arguments).await?;
    Ok(name)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> Outcome {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await?;
    Ok(())
}

async fn four_types() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let header = || table([("h", AMQPValue::LongInt(1))]);
    let matching = table([("h", AMQPValue::LongInt(1)), ("x-match", text("all"))]);
    let cases = [
        (ExchangeKind::Direct, "k", FieldTable::default(), "k"),
        (ExchangeKind::Fanout, "", FieldTable::default(), "any"),
        (ExchangeKind::Topic, "a.*.#", FieldTable::default(), "a.b.c"),
        (ExchangeKind::Headers, "", matching, ""),
    ];
    for (kind, binding, arguments, key) in cases {
        let exchange = exchange(channel, kind, FieldTable::default()).await?;
        let queue = queue(channel, FieldTable::default()).await?;
        bind(channel, &queue, &exchange, binding, arguments).await?;
        publish_to(channel, &exchange, key, b"x", BasicProperties::default().with_headers(header())).await?;
        let got = get(channel, &queue, true).await?;
        same((got.exchange.as_str(), got.routing_key.as_str()), (exchange.as_str(), key))?;
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    Ok(())
}

async fn chained() -> Outcome {
    let Client { channel, .. } = &Client::connect().await?;
    let spare = exchange(channel, ExchangeKind::Fanout, FieldTable::default()).await?;
    let first = exchange(channel, ExchangeKind::Direct, table([("alternate-exchange", text(&spare))])).await?;
    let inner = exchange(channel, ExchangeKind::Topic, FieldTable::default()).await?;
    let options = ExchangeBindOptions::default();
    let key = "a.b";
    channel
        .exchange_bind(inner.as_str().into(), first.as_str().into(), key.into(), options, FieldTable::default())
        .await?;
    let (bound, caught) = (queue(channel, FieldTable::default()).await?, queue(channel, FieldTable::default()).await?);
    bind(channel, &bound, &inner, "#.b", FieldTable::default()).await?;
    bind(channel, &caught, &spare, "", FieldTable::default()).await?;
    publish_to(channel, &first, key, b"bound", BasicProperties::default()).await?;
    publish_to(channel, &first, "other", b"caught", BasicProperties::default()).await?;
    same(get(channel, &bound, true).await?.data.clone(), b"bound".to_vec())?;
    same(get(channel, &caught, true).await?.data.clone(), b"caught".to_vec())?;
    for name in [first, inner, spare] {
        channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await?;
    }
    Ok(())
}
