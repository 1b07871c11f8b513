//! Accepts AMQP connections and starts a task for each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_amqp091::{Connection, Settings};
use portolan_core::alarms::Alarms;
use portolan_core::broker::Broker;
use portolan_core::catalogue::ConnectionId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::Instrument;

use crate::connection::{Surroundings, Task};
use crate::time::now_ms;
use crate::wire::TcpWire;

/// Pause after the system had no resources for a connection, lest we ask it in a circle.
const BREATH: Duration = Duration::from_millis(100);

/// Makes AMQP 0-9-1 connections of what is accepted.
pub struct Acceptor {
    /// The broker that they talk to.
    pub broker: Arc<Broker>,
    /// What the protocol allows.
    pub settings: Arc<Settings>,
    /// Whether publishers may go on.
    pub alarms: Arc<Alarms>,
    /// The rest of the process.
    pub around: Arc<Surroundings>,
    /// Numbers connections.
    pub next_id: AtomicU64,
}

impl Acceptor {
    /// Accepts for as long as the broker does not stop.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.around.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.start(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; is the limit of open files too low?");
                    sleep(BREATH).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.around.admission.admit(peer) else {
            tracing::warn!(%peer, "connection refused: too many (limits.connections, limits.connections_per_address)");
            return;
        };
        // Without it the last piece of each answer waits for the client's acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection lost");
            return;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("connection", id, %peer);
        // Two handles to one socket: the task reads, whoever has something for the client writes.
        let (reader, writer) = stream.into_split();
        let woken = Arc::new(Notify::new());
        let counters = Arc::clone(&self.broker.counters);
        counters.objects.connections_opened.add(1);
        let writer = Arc::new(writer);
        let wire = Box::new(TcpWire::new(Arc::clone(&writer), Arc::clone(&woken)));
        let engine = Connection::new(
            Arc::clone(&self.broker),
            Arc::clone(&self.settings),
            Arc::clone(&self.alarms),
            ConnectionId(id),
            wire,
            now_ms(),
        );
        let task = Task::new(engine, writer, reader, peer, woken, Arc::clone(&self.around));
        let life = async move {
            task.run().await;
            counters.objects.connections_closed.add(1);
            drop(place);
        };
        tokio::spawn(life.instrument(span));
    }
}
