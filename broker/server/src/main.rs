//! The `portolan` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use portolan::cli::Cli;
use portolan::{node, serve};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Huge pages round the memory of many small connections up by megabytes. Where the kernel does not know the
    // wish, it stays as it is.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Cli::parse().run(|loaded| serve::run(loaded, node::start)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("portolan: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
