//! The `portolan` command.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use mimalloc::MiMalloc;
use portolan::cli::Cli;
use portolan::exit::Failure;
use portolan::serve::{self, DataPath, Parts};
use portolan::status::{Gauges, Status};
use portolan_core::store::Space;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run(|loaded| serve::run(loaded, start)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("portolan: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

struct Idle;

impl Status for Idle {
    fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    fn space(&self) -> Space {
        Space::Plenty
    }
}

impl DataPath for Idle {
    fn status(&self) -> Arc<dyn Status> {
        Arc::new(Idle)
    }

    async fn drain(self, _deadline: Instant) -> Result<(), Failure> {
        Ok(())
    }
}

async fn start(_parts: Parts) -> Result<Idle, Failure> {
    Ok(Idle)
}
