//! The way to a client over plain TCP: written to by whichever thread has something for it.

use std::io::{self, IoSlice};
use std::sync::Arc;

use portolan_core::outbox::Wire;
use tokio::net::tcp::OwnedWriteHalf;

use crate::wake::Wake;

/// A TCP connection's sending side.
pub struct TcpWire {
    stream: Arc<OwnedWriteHalf>,
    woken: Arc<Wake>,
}

impl TcpWire {
    /// The sending side of `stream`; `woken` wakes the connection's task.
    pub fn new(stream: Arc<OwnedWriteHalf>, woken: Arc<Wake>) -> Self {
        Self { stream, woken }
    }
}

impl Wire for TcpWire {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [one] => self.stream.try_write(one),
            many => self.stream.try_write_vectored(many),
        }
    }

    fn wake(&self) {
        self.woken.call();
    }
}
