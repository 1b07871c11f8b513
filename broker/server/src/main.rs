//! The `portolan` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use portolan::cli::Cli;
use portolan::{node, serve};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run(|loaded| serve::run(loaded, node::start)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("portolan: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
