//! The HTTP listener: metrics for Prometheus, health for whoever starts and balances, lists for operators.

mod lists;
mod metrics;
mod page;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portolan_core::broker::Broker;
use portolan_core::counters::Counters;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::alarms::{AlarmBoard, Marks};
use crate::auth::Authenticator;
use crate::bind::Bound;
use crate::config::Config;
use crate::mqtt::clients::Clients;
use crate::status::{Lifecycle, Phase, Status};

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// Time for a request's head to arrive, and for which an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Everything that the HTTP listener shows.
pub struct Panel {
    node: String,
    product: String,
    product_version: String,
    counters: Arc<Counters>,
    lifecycle: Arc<Lifecycle>,
    alarms: Arc<AlarmBoard>,
    marks: Marks,
    started_at: SystemTime,
    // Empty until the data path is up.
    status: OnceLock<Arc<dyn Status>>,
    desk: OnceLock<Desk>,
}

/// What lists are made of, and who may read them.
pub struct Desk {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Knows who asks.
    pub authenticator: Arc<Authenticator>,
    /// MQTT's clients.
    pub clients: Arc<Clients>,
}

impl Panel {
    /// A panel of a node that starts.
    pub fn new(
        config: &Config,
        counters: Arc<Counters>,
        lifecycle: Arc<Lifecycle>,
        alarms: Arc<AlarmBoard>,
        marks: Marks,
    ) -> Self {
        Self {
            node: config.node.name.clone(),
            product: config.amqp.product.clone(),
            product_version: config.amqp.version.clone(),
            counters,
            lifecycle,
            alarms,
            marks,
            started_at: SystemTime::now(),
            status: OnceLock::new(),
            desk: OnceLock::new(),
        }
    }

    /// Shows the data path from now on.
    pub fn show(&self, status: Arc<dyn Status>) {
        // There is one data path per process; a second one would change nothing.
        let _ = self.status.set(status);
    }
}

impl Panel {
    /// Answers for lists from now on.
    pub fn open(&self, desk: Desk) {
        // As above.
        let _ = self.desk.set(desk);
    }
}

/// Answers on each of the addresses until the runtime ends.
///
/// # Errors
/// When an address cannot be listened on after all.
pub fn serve(bound: Vec<Bound>, backlog: u32, panel: &Arc<Panel>) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    for one in bound {
        let listener = TcpListener::from_std(one.listen(backlog)?)?;
        tokio::spawn(accept(listener, router(panel.clone()), permits.clone()));
    }
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, permits: Arc<Semaphore>) {
    // The semaphore is never closed.
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone().layer(Extension(peer));
                tokio::spawn(async move {
                    converse(stream, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of files, most likely: others must close some first.
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

fn router(panel: Arc<Panel>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/api/mqtt/connections", get(lists::connections))
        .route("/api/mqtt/sessions", get(lists::sessions))
        .route("/api/mqtt/subscriptions", get(lists::subscriptions))
        .with_state(panel)
}

async fn metrics(State(panel): State<Arc<Panel>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&panel))
}

/// Whether the process is worth keeping: only one that cannot go on is not.
async fn live(State(panel): State<Arc<Panel>>) -> impl IntoResponse {
    match &*panel.lifecycle.phase() {
        Phase::Failed(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n")),
        _ => (StatusCode::OK, "live\n".to_owned()),
    }
}

/// Whether clients should be sent here. They should during an alarm: consumers are what ends it.
async fn ready(State(panel): State<Arc<Panel>>) -> impl IntoResponse {
    match &*panel.lifecycle.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: the store is being opened\n".to_owned()),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining: clients are being closed\n".to_owned()),
        Phase::Failed(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n")),
        Phase::Ready => match panel.alarms.alarms().shortage().reason() {
            Some(reason) => (StatusCode::OK, format!("ready, publishers are blocked: {reason}\n")),
            None => (StatusCode::OK, "ready\n".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests;
