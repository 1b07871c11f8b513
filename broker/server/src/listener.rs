//! Accepts AMQP connections and starts a task for each.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_amqp091::{Connection, Settings};
use portolan_core::alarms::Alarms;
use portolan_core::broker::Broker;
use portolan_core::catalogue::ConnectionId;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::Instrument;

use crate::connection::{Surroundings, Task};
use crate::time::now_ms;
use crate::wake::Wake;
use crate::wire::TcpWire;
use crate::workers::Workers;

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
    /// The threads that connections live on.
    pub workers: Workers,
    /// The rest of the process.
    pub around: Arc<Surroundings>,
    /// Numbers connections.
    pub next_id: AtomicU64,
}

impl Acceptor {
    /// Accepts for as long as the broker does not stop.
    ///
    /// # Errors
    /// When the runtime cannot watch the listener.
    pub fn accept(self: &Arc<Self>, listener: net::TcpListener) -> io::Result<()> {
        let worker = self.workers.next();
        let entered = worker.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        worker.spawn(Arc::clone(self).accept_all(listener));
        Ok(())
    }

    async fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.around.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            // Its thread is another one from here on.
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => self.start(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; is the limit of open files too low?");
                    sleep(BREATH).await;
                }
            }
        }
    }

    /// Hands a connection to the thread that it will live on.
    fn start(self: &Arc<Self>, stream: net::TcpStream, peer: SocketAddr) {
        let Some(place) = self.around.admission.admit(peer) else {
            tracing::warn!(%peer, "connection refused: too many (limits.connections, limits.connections_per_address)");
            return;
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("connection", id, %peer);
        let acceptor = Arc::clone(self);
        let life = async move {
            let opened = &acceptor.broker.counters.objects;
            opened.connections_opened.add(1);
            // Fails when the client is gone already.
            match acceptor.task(stream, peer, id) {
                Ok(task) => task.run().await,
                Err(error) => tracing::debug!(%error, "connection lost"),
            }
            opened.connections_closed.add(1);
            drop(place);
        };
        self.workers.next().spawn(life.instrument(span));
    }

    fn task(&self, stream: net::TcpStream, peer: SocketAddr, id: u64) -> io::Result<Task<Connection>> {
        let stream = TcpStream::from_std(stream)?;
        // Without it the last piece of each answer waits for the client's acknowledgement of the one before.
        stream.set_nodelay(true)?;
        // Two handles to one socket: the task reads, whoever has something for the client writes.
        let (reader, writer) = stream.into_split();
        let (writer, woken) = (Arc::new(writer), Arc::new(Wake::default()));
        let wire = Box::new(TcpWire::new(Arc::clone(&writer), Arc::clone(&woken)));
        let engine = Connection::new(
            Arc::clone(&self.broker),
            Arc::clone(&self.settings),
            Arc::clone(&self.alarms),
            ConnectionId(id),
            wire,
            now_ms(),
        );
        Ok(Task::new(engine, writer, reader, peer, woken, Arc::clone(&self.around)))
    }
}
