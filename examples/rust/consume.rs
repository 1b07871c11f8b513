//! Receives orders and acknowledges each after its work is done: `cargo run --bin consume [HOW_MANY]`.

use std::env;

use futures_lite::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let how_many: Option<usize> = env::args().nth(1).map(|text| text.parse()).transpose()?;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;

    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("orders".into(), durable, FieldTable::default()).await?;
    // At most ten messages are with us unacknowledged; the others wait for whoever is free.
    channel.basic_qos(10, BasicQosOptions::default()).await?;

    let options = BasicConsumeOptions::default();
    let mut orders = channel.basic_consume("orders".into(), "".into(), options, FieldTable::default()).await?;
    let mut done = 0;
    while how_many.is_none_or(|many| done < many) {
        let Some(order) = orders.next().await else { break };
        let order = order?;
        println!("received {}", String::from_utf8_lossy(&order.data));
        // Were we to die before this line, the order would go to another consumer.
        order.ack(BasicAckOptions::default()).await?;
        done += 1;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
