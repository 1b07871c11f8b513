//! The durable queues under test and how messages reach them.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use portolan_conformance::{Outcome, url};

/// A queue, and whether it is a quorum queue (whose requeued messages may change places).
pub(crate) const QUEUES: [(&str, bool); 6] = [
    ("crash-0", false),
    ("crash-1", false),
    ("crash-2", false),
    ("crash-quorum", true),
    ("crash-fan-0", false),
    ("crash-fan-1", false),
];

/// The queue whose confirms show that what came before is on stable storage.
pub(crate) const MARKS: &str = "crash-marks";

const FAN: &str = "crash-fan";

/// Where a publisher sends: exchange, routing key, and the queues that must get it.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(crate) queues: &'static [usize],
}

/// One publisher each.
pub(crate) const ROUTES: [Route; 5] = [
    Route { exchange: "", key: "crash-0", queues: &[0] },
    Route { exchange: "", key: "crash-1", queues: &[1] },
    Route { exchange: "", key: "crash-2", queues: &[2] },
    Route { exchange: "", key: "crash-quorum", queues: &[3] },
    Route { exchange: FAN, key: "", queues: &[4, 5] },
];

/// Declares everything, once.
pub(crate) async fn declare() -> Outcome {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for (name, quorum) in QUEUES {
        let mut arguments = FieldTable::default();
        if quorum {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            // Dropping a message that was returned too often is not what is tested here.
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000));
        }
        channel.queue_declare(name.into(), durable, arguments).await?;
    }
    let mut short = FieldTable::default();
    short.insert("x-max-length".into(), AMQPValue::LongInt(1));
    channel.queue_declare(MARKS.into(), durable, short).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(FAN.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?;
    for (name, _) in &QUEUES[4..] {
        channel
            .queue_bind((*name).into(), FAN.into(), "".into(), QueueBindOptions::default(), FieldTable::default())
            .await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
