//! Sends ten orders to a durable queue and waits until the broker has each on disk: `cargo run --bin produce`.

use std::env;

use anyhow::ensure;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;

    // Declaring a queue that is there already changes nothing, so producer and consumer both do it.
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("orders".into(), durable, FieldTable::default()).await?;

    // From here on the broker confirms each message; without this a publish is a hope.
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // Delivery mode 2: keep the message over a restart.
    let persistent = BasicProperties::default().with_delivery_mode(2).with_content_type("text/plain".into());

    for number in 1..=10 {
        let body = format!("order {number}");
        let options = BasicPublishOptions::default();
        // The empty exchange brings a message to the queue that its routing key names.
        let sent =
            channel.basic_publish("".into(), "orders".into(), options, body.as_bytes(), persistent.clone()).await?;
        ensure!(sent.await?.is_ack(), "the broker did not take {body}");
        println!("sent {body}");
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
