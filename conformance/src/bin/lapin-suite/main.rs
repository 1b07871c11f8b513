//! lapin, the Rust client, through what its users rely on.

use std::process::ExitCode;

use portolan_conformance::Suite;

mod client;
mod delivery;
mod queues;
mod routing;
mod survival;

#[tokio::main]
async fn main() -> ExitCode {
    let mut suite = Suite::default();
    delivery::run(&mut suite).await;
    routing::run(&mut suite).await;
    queues::run(&mut suite).await;
    survival::run(&mut suite).await;
    suite.finish()
}
