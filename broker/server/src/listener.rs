//! Accepts connections of each protocol and starts a task for each.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_core::broker::Broker;
use portolan_core::catalogue::ConnectionId;
use portolan_core::engine::Engine;
use portolan_core::outbox::Wire;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::connection::{Surroundings, Task};
use crate::label::{Label, Labelled};
use crate::time::now_ms;
use crate::wake::Wake;
use crate::wire::TcpWire;
use crate::workers::Workers;

/// Pause after the system had no resources for a connection, lest we ask it in a circle.
const BREATH: Duration = Duration::from_millis(100);

/// What is spoken behind a listener.
pub trait Protocol: Send + Sync + 'static {
    /// A connection's state.
    type Engine: Engine + 'static;

    /// A connection that has just been accepted.
    fn connect(&self, id: ConnectionId, peer: SocketAddr, wire: Box<dyn Wire>, now: u64) -> Self::Engine;
}

/// What acceptors of all protocols share.
pub struct Common {
    /// The broker that clients talk to.
    pub broker: Arc<Broker>,
    /// The threads that connections live on.
    pub workers: Workers,
    /// The rest of the process.
    pub around: Arc<Surroundings>,
    /// Numbers connections.
    pub next_id: AtomicU64,
}

/// Makes connections of one protocol of what is accepted.
pub struct Acceptor<P> {
    protocol: P,
    common: Arc<Common>,
}

impl<P: Protocol> Acceptor<P> {
    /// An acceptor for that protocol.
    pub fn new(protocol: P, common: &Arc<Common>) -> Arc<Self> {
        Arc::new(Self { protocol, common: Arc::clone(common) })
    }

    /// Accepts for as long as the broker does not stop.
    ///
    /// # Errors
    /// When the runtime cannot watch the listener.
    pub fn accept(self: &Arc<Self>, listener: net::TcpListener) -> io::Result<()> {
        let worker = self.common.workers.next();
        let entered = worker.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        worker.spawn(Arc::clone(self).accept_all(listener));
        Ok(())
    }

    async fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.common.around.stop.clone();
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
        let Some(place) = self.common.around.admission.admit(peer) else {
            tracing::warn!(%peer, "connection refused: too many (limits.connections, limits.connections_per_address)");
            return;
        };
        let id = self.common.next_id.fetch_add(1, Ordering::Relaxed);
        let acceptor = Arc::clone(self);
        let life = async move {
            let opened = &acceptor.common.broker.counters.objects;
            opened.connections_opened.add(1);
            // Fails when the client is gone already.
            match acceptor.task(stream, peer, id) {
                Ok(mut task) => task.run().await,
                Err(error) => tracing::debug!(%error, "connection lost"),
            }
            opened.connections_closed.add(1);
            drop(place);
        };
        self.common.workers.next().spawn(Labelled::new(Label { id, peer }, life));
    }

    fn task(&self, stream: net::TcpStream, peer: SocketAddr, id: u64) -> io::Result<Box<Task<P::Engine>>> {
        let stream = TcpStream::from_std(stream)?;
        // Without it the last piece of each answer waits for the client's acknowledgement of the one before.
        stream.set_nodelay(true)?;
        // Two handles to one socket: the task reads, whoever has something for the client writes.
        let (reader, writer) = stream.into_split();
        let (writer, woken) = (Arc::new(writer), Arc::new(Wake::default()));
        let wire = Box::new(TcpWire::new(Arc::clone(&writer), Arc::clone(&woken)));
        let engine = self.protocol.connect(ConnectionId(id), peer, wire, now_ms());
        Ok(Box::new(Task::new(engine, writer, reader, peer, woken, Arc::clone(&self.common.around))))
    }
}
