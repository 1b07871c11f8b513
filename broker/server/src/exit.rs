//! Why the program ended, and the exit code that says so. The codes are those of BSD's sysexits where one fits.

use std::io;
use std::sync::Arc;

use portolan_core::store::StoreError;
use thiserror::Error;

use crate::bind::Unavailable;
use crate::config::Problem;

/// Why the program did not end well.
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{}", lines(.0))]
    Config(Vec<Problem>),
    /// An address cannot be had.
    #[error(transparent)]
    Listen(#[from] Unavailable),
    /// The store does not open, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing something else failed.
    #[error("{what}: {error}")]
    Io {
        /// What we were doing.
        what: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// The broker gave up while running.
    #[error("the broker cannot go on: {0}")]
    Failed(Arc<str>),
    /// Clients were not closed and the journal not flushed in time.
    #[error("not everything was closed within node.drain_timeout; nothing confirmed is lost")]
    Overdue,
    /// A second signal came while draining.
    #[error("stopped by {} while draining; nothing confirmed is lost", .0.name)]
    Signal(crate::signals::Received),
    /// A mistake of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a data folder meets that cannot be made or opened, as against one that stops working.
fn cannot_make(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | NotFound | NotADirectory | ReadOnlyFilesystem)
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Listen(_) => 69,
            Self::Store(StoreError::Damaged { .. } | StoreError::TooNew { .. }) => 65,
            Self::Store(StoreError::InUse { .. }) => 73,
            Self::Store(StoreError::Io { error, .. }) if cannot_make(error) => 73,
            Self::Store(_) | Self::Io { .. } | Self::Failed(_) => 74,
            Self::Overdue => 75,
            Self::Signal(signal) => signal.exit_code,
            Self::Internal(_) => 70,
        }
    }
}

/// The table of exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  stopped cleanly
    2  wrong usage of the command line
   65  the data folder is damaged, or was written by a newer version
   69  a listener's address is in use or not available
   70  internal error
   73  the data folder cannot be made or is in use by another broker
   74  reading or writing failed
   75  closing took longer than node.drain_timeout
   78  wrong configuration
  130, 143  a second SIGINT or SIGTERM cut the closing short";
