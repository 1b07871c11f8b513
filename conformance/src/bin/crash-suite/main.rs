//! kill -9 under load, again and again: nothing confirmed may be lost, nothing repeated without saying so.
//!
//! The number of rounds is CRASH_ROUNDS (5), the seed CRASH_SEED (the time of day).

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use lapin::{Connection, ConnectionProperties};
use portolan_conformance::{Outcome, Suite, control, url};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use ledger::Ledger;
use topology::{QUEUES, ROUTES};

mod drain;
mod ledger;
mod load;
mod message;
mod topology;

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::main]
async fn main() -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (rounds, seed) = (number("CRASH_ROUNDS", 5), number("CRASH_SEED", now));
    println!("# {rounds} rounds, CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut suite = Suite::default();
    let ledger = Arc::new(Ledger::default());
    suite.check("the queues are declared", topology::declare()).await;
    for round in 0..rounds {
        let plan =
            Plan { round, load: Duration::from_millis(rng.random_range(20..1200)), twice: rng.random_ratio(1, 4) };
        suite.check(&format!("round {round}"), plan.run(&ledger, rng.random())).await;
    }
    println!("# {}", ledger.summary());
    suite.finish()
}

/// What one round does.
struct Plan {
    round: u64,
    load: Duration,
    /// Whether the broker is killed again as soon as it is back.
    twice: bool,
}

impl Plan {
    async fn run(self, ledger: &Arc<Ledger>, seed: u64) -> Outcome {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (publisher, route) in ROUTES.iter().enumerate() {
            let batch = ledger.batch(self.round, publisher);
            tasks.spawn(load::publish(*route, batch, seed ^ publisher as u64, stopped.clone()));
        }
        for queue in 0..QUEUES.len() {
            let rng = StdRng::seed_from_u64(seed.rotate_left(17) ^ queue as u64);
            tasks.spawn(load::consume(queue, Arc::clone(ledger), rng, stopped.clone()));
        }
        time::sleep(self.load).await;
        control("kill").await.context("after the kill")?;
        stop.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            ended.context("a client panicked")??;
        }
        if self.twice {
            control("kill").await.context("after the second kill")?;
        }
        let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
        let counts = drain::drain(&connection, ledger).await?;
        drop(connection);
        let wrong = ledger.judge(self.round);
        println!(
            "#   killed {}after {} ms; {} confirmed so far, {} drained, {} of them redelivered",
            if self.twice { "twice, first " } else { "" },
            self.load.as_millis(),
            ledger.confirmed(),
            counts.drained,
            counts.redelivered
        );
        if !wrong.is_empty() {
            bail!("{} wrong, such as {}", wrong.len(), wrong[..wrong.len().min(5)].join("; "));
        }
        Ok(())
    }
}
