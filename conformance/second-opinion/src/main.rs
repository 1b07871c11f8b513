//! A second opinion on MQTT packets: Portolan's codec against rumqttd's, in both directions.
//!
//! Prints `ok NAME` or `not ok NAME: why` for each check.

mod disagreements;
mod facts;
mod ours;
mod random;
mod table;
mod theirs;
mod written;

use std::process::ExitCode;

/// The tally of the checks.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: usize,
}

impl Checks {
    /// Says how a check ended.
    pub fn check(&mut self, name: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {name}");
            }
            Err(why) => {
                self.failed += 1;
                println!("not ok {name}: {}", why.replace('\n', " "));
            }
        }
    }
}

fn main() -> ExitCode {
    // rumqttd's panics are caught and among what is compared; ours end the program, with a line that says where.
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_none_or(|place| !place.file().contains("rumqttd")) {
            println!("# {panic}");
        }
    }));
    let mut checks = Checks::default();
    table::run(&mut checks);
    disagreements::run(&mut checks);
    written::run(&mut checks);
    println!("# {} passed, {} failed", checks.passed, checks.failed);
    if checks.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
