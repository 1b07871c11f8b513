//! Clients that work until the broker dies under them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{StreamExt as _, future};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use portolan_conformance::{Outcome, url};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time;

use crate::ledger::{Batch, Ledger};
use crate::message::{self, Id};
use crate::topology::{MARKS, QUEUES, Route};

/// Publishes waiting for their confirm.
const WINDOW: usize = 256;
/// Acks between two marks.
const SEAL_EVERY: usize = 200;

async fn channel() -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Publishes as fast as the window allows; returns when the connection is gone.
pub(crate) async fn publish(route: Route, batch: Arc<Batch>, seed: u64, mut stop: watch::Receiver<bool>) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut waiting: VecDeque<(Id, PublisherConfirm)> = VecDeque::new();
    // Held to the end: a connection that is dropped is closed.
    let Ok((_connection, channel)) = channel().await else { return Ok(()) };
    while !*stop.borrow_and_update() {
        let transient = rng.random_ratio(1, 20);
        let id = batch.begin(transient);
        let size = match rng.random_range(0..1000) {
            0 => rng.random_range(100_000..400_000),
            1..100 => rng.random_range(1000..10_000),
            _ => rng.random_range(0..300),
        };
        let properties = BasicProperties::default().with_delivery_mode(if transient { 1 } else { 2 });
        let body = message::encode(id, size);
        let options = BasicPublishOptions::default();
        match channel.basic_publish(route.exchange.into(), route.key.into(), options, &body, properties).await {
            Ok(confirm) => waiting.push_back((id, confirm)),
            Err(_) => break,
        }
        if waiting.len() >= WINDOW {
            let Some((id, confirm)) = waiting.front_mut() else { break };
            let got = tokio::select! {
                got = confirm => got,
                _ = stop.changed() => break,
            };
            match got {
                Ok(Confirmation::Ack(_)) => batch.confirmed(*id),
                _ => break,
            }
            waiting.pop_front();
        }
    }
    // Confirms that arrived before the end count, whatever came after them.
    gone(&channel).await;
    for (id, mut confirm) in waiting {
        if let Some(Ok(Confirmation::Ack(_))) = future::poll_once(&mut confirm).await {
            batch.confirmed(id);
        }
    }
    Ok(())
}

/// Waits until the client has read all that the dead broker sent and noticed its death.
async fn gone(channel: &Channel) {
    let noticed = async {
        while channel.status().connected() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = time::timeout(Duration::from_secs(5), noticed).await;
}

/// Receives, acknowledges most and gives some back; returns when the connection is gone.
pub(crate) async fn consume(
    queue: usize,
    ledger: Arc<Ledger>,
    mut rng: StdRng,
    mut stop: watch::Receiver<bool>,
) -> Outcome {
    // Whatever this client waits for when the broker dies will not come.
    tokio::select! {
        ended = work(queue, &ledger, &mut rng) => ended,
        _ = stop.changed() => Ok(()),
    }
}

async fn work(queue: usize, ledger: &Ledger, rng: &mut StdRng) -> Outcome {
    let Ok((_connection, channel)) = channel().await else { return Ok(()) };
    let prefetch = [1, 20, 500][rng.random_range(0..3)];
    let name = QUEUES[queue].0;
    if channel.basic_qos(prefetch, BasicQosOptions::default()).await.is_err() {
        return Ok(());
    }
    let options = BasicConsumeOptions::default();
    let Ok(mut consumer) = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await else {
        return Ok(());
    };
    let mut unsealed = Vec::new();
    loop {
        let Some(Ok(delivery)) = consumer.next().await else { return Ok(()) };
        let Some(id) = ledger.delivered(queue, &delivery.data, delivery.redelivered, false) else { continue };
        if rng.random_ratio(1, 64) {
            if delivery.nack(BasicNackOptions { multiple: false, requeue: true }).await.is_err() {
                return Ok(());
            }
            continue;
        }
        // Noted first: once it is sent, the broker may have read it.
        ledger.acked(queue, id);
        unsealed.push(id);
        if delivery.ack(BasicAckOptions::default()).await.is_err() {
            return Ok(());
        }
        if unsealed.len() >= SEAL_EVERY {
            if !mark(&channel).await {
                return Ok(());
            }
            ledger.sealed(queue, &unsealed);
            unsealed.clear();
        }
    }
}

/// Publishes a mark and waits for its confirm: all acks sent before it have then been read and stored.
pub(crate) async fn mark(channel: &Channel) -> bool {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let sent =
        channel.basic_publish("".into(), MARKS.into(), BasicPublishOptions::default(), b"mark", properties).await;
    let Ok(confirm) = sent else { return false };
    matches!(time::timeout(Duration::from_secs(30), confirm).await, Ok(Ok(Confirmation::Ack(_))))
}
