//! What the Rust clients of the conformance suites share: where the broker is, how a check is run, how waiting is done.

use std::env;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

/// How long an event may take to come about.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What a check returns.
pub type Outcome = anyhow::Result<()>;

/// The AMQP address of the broker under test.
pub fn url() -> String {
    url_as("guest", "guest")
}

/// The same with other credentials.
pub fn url_as(user: &str, password: &str) -> String {
    let host = env::var("BROKER_HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port = env::var("BROKER_PORT").unwrap_or_else(|_| "5672".into());
    format!("amqp://{user}:{password}@{host}:{port}/%2f")
}

/// Asks the harness to `restart` or `kill` the broker; it is ready again when this returns.
pub async fn control(word: &str) -> Outcome {
    let address = env::var("BROKER_CONTROL").context("BROKER_CONTROL names no harness")?;
    let mut harness = TcpStream::connect(address).await?;
    harness.write_all(format!("{word}\n").as_bytes()).await?;
    let mut answer = String::new();
    harness.read_to_string(&mut answer).await?;
    if answer.starts_with("error") {
        bail!("{}", answer.trim());
    }
    Ok(())
}

/// A name no other check uses.
pub fn fresh(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-rust-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Asks again until the answer is there, within the deadline.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("{what} did not come about");
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails unless both are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Outcome {
    if got != wanted {
        bail!("got {got:?}, wanted {wanted:?}");
    }
    Ok(())
}

/// The tally of one suite.
#[derive(Debug, Default)]
pub struct Suite {
    failed: bool,
}

impl Suite {
    /// Runs one check, within a minute and a half, and prints its line.
    pub async fn check(&mut self, name: &str, body: impl Future<Output = Outcome>) {
        let outcome = time::timeout(Duration::from_secs(90), body).await;
        match outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("not finished within 90 s"))) {
            Ok(()) => println!("ok {name}"),
            Err(why) => {
                self.failed = true;
                println!("not ok {name}: {}", format!("{why:#}").replace('\n', " "));
            }
        }
    }

    /// The exit status of the suite.
    pub fn finish(self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
