//! Heartbeats, restarts and sudden death.

use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use portolan_conformance::{Outcome, Suite, control, fresh, same, url};
use tokio::time;

use crate::client::{Client, durable, get, publish, queue, ready};

pub(crate) async fn run(suite: &mut Suite) {
    suite.check("heartbeats keep an idle connection", heartbeats()).await;
    suite.check("durable messages survive a restart", survive("restart")).await;
    suite.check("confirmed messages survive kill -9", survive("kill")).await;
}

async fn heartbeats() -> Outcome {
    let url = format!("{}?heartbeat=1", url());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    time::sleep(Duration::from_millis(3500)).await;
    queue(&channel, FieldTable::default()).await?;
    Ok(())
}

async fn survive(how: &str) -> Outcome {
    let name = fresh("durable");
    let before = Client::connect().await?;
    durable(&before.channel, &name).await?;
    for i in 0..300u32 {
        publish(&before.channel, &name, &i.to_be_bytes()).await?;
    }
    control(how).await?;
    let after = Client::connect().await?;
    same(ready(&after.channel, &name).await?, 300)?;
    for i in 0..300u32 {
        same(get(&after.channel, &name, true).await?.data.as_slice(), &i.to_be_bytes())?;
    }
    after.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
    Ok(())
}
