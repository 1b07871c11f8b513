//! `portolan serve`: starts everything around the data path, watches over it, and ends it in order.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_core::counters::Counters;
use tokio::runtime;
use tokio::task::JoinHandle;

use crate::alarms::{self, AlarmBoard, Marks};
use crate::auth::Authenticator;
use crate::bind::{self, Bound};
use crate::config::{Config, Loaded};
use crate::exit::Failure;
use crate::http;
use crate::logging;
use crate::mqtt::clients::Clients;
use crate::process;
use crate::signals::Signals;
use crate::status::{Lifecycle, Phase, Status};

/// Time beyond `node.drain_timeout` that a drain may take to come back after it has cut everything off.
const GRACE: Duration = Duration::from_secs(5);

/// What the data path is given by its surroundings.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Lets clients in, once its hashes are made.
    pub authenticator: JoinHandle<Result<Arc<Authenticator>, Failure>>,
    /// To be counted into.
    pub counters: Arc<Counters>,
    /// Says when publishers must wait.
    pub alarms: Arc<AlarmBoard>,
    /// To be told when the data path cannot go on.
    pub lifecycle: Arc<Lifecycle>,
    /// The addresses for AMQP 0-9-1, to be opened once clients can be served.
    pub amqp: Vec<Bound>,
    /// Those for MQTT.
    pub mqtt: Vec<Bound>,
    /// To be told of MQTT's clients.
    pub clients: Arc<Clients>,
    /// To be given what its lists are made of.
    pub panel: Arc<http::Panel>,
}

/// The data path, as its surroundings see it: store, shards, connections and their listeners.
pub trait DataPath: Send + 'static {
    /// Shows it to operators.
    fn status(&self) -> Arc<dyn Status>;

    /// Stops accepting, closes clients with their protocol's goodbye, and makes the store durable and clean. What is
    /// not closed at `deadline` is cut off.
    fn drain(self, deadline: Instant) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Runs the broker until a signal ends it. `start` opens the store and the listeners of the data path.
///
/// # Errors
/// When it does not come up, cannot go on, or does not end in time.
pub fn run<D, S, F>(loaded: Loaded, start: S) -> Result<(), Failure>
where
    D: DataPath,
    S: FnOnce(Parts) -> F,
    F: Future<Output = Result<D, Failure>>,
{
    logging::start(&loaded.config.logging).map_err(Failure::Internal)?;
    for advice in loaded.advice() {
        tracing::warn!("{advice}");
    }
    let config = Arc::new(loaded.config);
    let files = process::raise_file_limit();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.node.name, files, "portolan starts");
    // For what is not a connection; those have threads of their own.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Io { what: "cannot start", error })?;
    let result = runtime.block_on(live(config, start));
    // A thread that is still reading from a disk that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn live<D, S, F>(config: Arc<Config>, start: S) -> Result<(), Failure>
where
    D: DataPath,
    S: FnOnce(Parts) -> F,
    F: Future<Output = Result<D, Failure>>,
{
    let mut signals = Signals::listen().map_err(|error| Failure::Io { what: "cannot receive signals", error })?;
    let counters = Arc::new(Counters::default());
    let lifecycle = Arc::new(Lifecycle::default());
    let board = Arc::new(AlarmBoard::default());
    let marks = Marks::of(&config);

    let http = bind::bind("http", &config.listeners.http)?;
    let amqp = bind::bind("amqp", &config.listeners.amqp)?;
    let mqtt = bind::bind("mqtt", &config.listeners.mqtt)?;
    let listeners = [("amqp", addresses(&amqp)), ("mqtt", addresses(&mqtt)), ("http", addresses(&http))];
    let ready_line = ready_line(&listeners);
    // Health is answered from here on, so that whoever waits for us can see that we are starting.
    let panel = Arc::new(http::Panel::new(&config, counters.clone(), lifecycle.clone(), board.clone(), marks.clone()));
    http::serve(http, config.listeners.backlog, &panel)
        .map_err(|error| Failure::Io { what: "cannot listen for HTTP", error })?;

    // Hashing takes a tenth of a second on a small machine: the store is opened meanwhile.
    let authenticator = tokio::spawn(authenticator(config.clone(), counters.clone()));
    let drain_timeout = config.node.drain_timeout.0;
    let parts = Parts {
        config,
        authenticator,
        counters,
        alarms: board.clone(),
        lifecycle: lifecycle.clone(),
        amqp,
        mqtt,
        clients: Arc::default(),
        panel: Arc::clone(&panel),
    };
    let path = tokio::select! {
        path = start(parts) => path?,
        // Nothing was promised to anybody yet.
        signal = signals.next() => {
            tracing::info!(signal = signal.name, "stopped while starting");
            return Ok(());
        }
    };
    panel.show(path.status());
    tokio::spawn(alarms::watch(board, marks, path.status()));
    lifecycle.enter(Phase::Ready);
    announce(&ready_line);

    let failure = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal = signal.name, "draining");
            None
        }
        reason = lifecycle.failed() => Some(Failure::Failed(reason)),
    };
    lifecycle.enter(Phase::Draining);
    let drained = drain(path, drain_timeout, &mut signals).await;
    failure.map_or(drained, Err)
}

async fn authenticator(config: Arc<Config>, counters: Arc<Counters>) -> Result<Arc<Authenticator>, Failure> {
    // Plain passwords are hashed here, which takes too long for a thread that serves sockets.
    let made = tokio::task::spawn_blocking(move || Authenticator::new(&config, counters)).await;
    made.map_err(|e| Failure::Internal(e.to_string()))?.map(Arc::new).map_err(Failure::Internal)
}

async fn drain<D: DataPath>(path: D, timeout: Duration, signals: &mut Signals) -> Result<(), Failure> {
    let started = Instant::now();
    let result = tokio::select! {
        drained = tokio::time::timeout(timeout + GRACE, path.drain(started + timeout)) => {
            drained.unwrap_or(Err(Failure::Overdue))
        }
        signal = signals.next() => Err(Failure::Signal(signal)),
    };
    tracing::info!(took_ms = started.elapsed().as_millis() as u64, clean = result.is_ok(), "portolan stops");
    result
}

fn addresses(bound: &[Bound]) -> Vec<SocketAddr> {
    bound.iter().map(Bound::address).collect()
}

/// `portolan ready amqp=0.0.0.0:5672,[::]:5672 http=127.0.0.1:15672`
fn ready_line(listeners: &[(&str, Vec<SocketAddr>)]) -> String {
    let mut line = "portolan ready".to_owned();
    for (key, addresses) in listeners.iter().filter(|(_, addresses)| !addresses.is_empty()) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        line.push_str(&format!(" {key}={}", addresses.join(",")));
    }
    line
}

fn announce(line: &str) {
    tracing::info!("{line}");
    // Whoever closed our standard output does not want the line.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use portolan_core::store::{Space, StoreError};

    use super::*;
    use crate::config::Addresses;
    use crate::status::Gauges;

    /// A data path that takes so long to drain.
    struct Fake(Duration);

    impl Status for Fake {
        fn gauges(&self) -> Gauges {
            Gauges::default()
        }

        fn space(&self) -> Space {
            Space::Plenty
        }
    }

    impl DataPath for Fake {
        fn status(&self) -> Arc<dyn Status> {
            Arc::new(Self(self.0))
        }

        async fn drain(self, _: Instant) -> Result<(), Failure> {
            tokio::time::sleep(self.0).await;
            Ok(())
        }
    }

    fn config() -> Arc<Config> {
        let mut config = Config::default();
        config.listeners.amqp = Addresses(vec!["127.0.0.1:0".parse().unwrap()]);
        config.listeners.mqtt = Addresses(vec![]);
        config.listeners.http = Addresses(vec![]);
        Arc::new(config)
    }

    #[tokio::test]
    async fn a_store_that_does_not_open_ends_the_start() {
        let start = |_: Parts| async { Err::<Fake, _>(StoreError::InUse { folder: "data".into() }.into()) };
        let failure = live(config(), start).await.unwrap_err();
        assert_eq!((failure.code(), failure.to_string().contains("another broker")), (73, true));
    }

    #[tokio::test]
    async fn a_broker_that_cannot_go_on_drains_and_ends() {
        let start = |parts: Parts| async move {
            parts.lifecycle.fail("the disk is gone");
            Ok(Fake(Duration::ZERO))
        };
        let failure = live(config(), start).await.unwrap_err();
        assert_eq!((failure.code(), failure.to_string().ends_with("the disk is gone")), (74, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_hangs_is_given_up() {
        let mut signals = Signals::listen().unwrap();
        let timeout = Duration::from_secs(10);
        let failure = drain(Fake(Duration::MAX), timeout, &mut signals).await.unwrap_err();
        assert_eq!(failure.code(), 75);
        assert!(drain(Fake(timeout), timeout, &mut signals).await.is_ok());
    }

    #[test]
    fn the_ready_line_names_what_is_open() {
        let at = |text: &str| text.parse().unwrap();
        let amqp = ("amqp", vec![at("0.0.0.0:5672"), at("[::]:5672")]);
        assert_eq!(ready_line(&[amqp.clone(), ("http", vec![])]), "portolan ready amqp=0.0.0.0:5672,[::]:5672");
        let line = ready_line(&[amqp, ("http", vec![at("127.0.0.1:15672")])]);
        assert!(line.ends_with(" http=127.0.0.1:15672"));
    }
}
