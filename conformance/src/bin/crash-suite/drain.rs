//! Takes everything out of the queues after a restart, in order.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use futures_lite::StreamExt as _;
use lapin::Connection;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use portolan_conformance::DEADLINE;
use tokio::time;

use crate::ledger::Ledger;
use crate::load;
use crate::message::Id;
use crate::topology::QUEUES;

/// What was found.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) drained: usize,
    pub(crate) redelivered: usize,
}

/// Empties every queue and makes sure that it stays empty.
pub(crate) async fn drain(connection: &Connection, ledger: &Arc<Ledger>) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for (queue, (name, _)) in QUEUES.iter().enumerate() {
        drain_one(connection, ledger, queue, &mut counts).await.context(*name)?;
    }
    Ok(counts)
}

async fn drain_one(
    connection: &Connection,
    ledger: &Arc<Ledger>,
    queue: usize,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let (name, quorum) = QUEUES[queue];
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(1000, BasicQosOptions::default()).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let stored = channel.queue_declare(name.into(), passive, FieldTable::default()).await?.message_count();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
    let mut latest: HashMap<(u32, u8), Id> = HashMap::new();
    let mut ids = Vec::new();
    for _ in 0..stored {
        let delivery = time::timeout(DEADLINE, consumer.next()).await;
        let delivery = delivery.with_context(|| format!("{} of {stored} came", ids.len()))?.context("cancelled")??;
        counts.drained += 1;
        counts.redelivered += usize::from(delivery.redelivered);
        if let Some(id) = ledger.delivered(queue, &delivery.data, delivery.redelivered, true) {
            let before = latest.insert((id.round, id.publisher), id);
            if let Some(before) = before.filter(|before| !quorum && before.number >= id.number) {
                ledger.disordered(queue, id, before);
            }
            ledger.acked(queue, id);
            ids.push(id);
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
    ensure!(load::mark(&channel).await, "the last mark was not confirmed");
    ledger.sealed(queue, &ids);
    channel.close(200, "drained".into()).await?;
    let channel = connection.create_channel().await?;
    let left = channel.queue_declare(name.into(), passive, FieldTable::default()).await?.message_count();
    ensure!(left == 0, "{left} messages are left though all that were stored have been acknowledged");
    Ok(())
}
