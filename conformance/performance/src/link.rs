//! One socket with what is still to be written and what is not yet whole.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Octets asked of the kernel by one read.
pub(crate) const READ: usize = 256 * 1024;

/// A connected socket.
pub(crate) struct Link {
    socket: TcpStream,
    /// What is to be written next; append here, then [`Link::flush`].
    pub(crate) output: Vec<u8>,
    written: usize,
    /// Whether the socket did not take all of it the last time.
    stuck: bool,
    tail: Vec<u8>,
}

impl Link {
    /// Connects, to block until told otherwise, but for no longer than `patience` in one call.
    pub(crate) fn connect(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&addr, patience)?, patience)
    }

    /// A link over a socket that is connected.
    pub(crate) fn over(socket: TcpStream, patience: Duration) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self { socket, output: Vec::new(), written: 0, stuck: false, tail: Vec::new() })
    }

    /// Whether calls return at once instead of waiting.
    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.socket.set_nonblocking(on)
    }

    /// Whether the socket would not take all that was to be written.
    pub(crate) fn is_behind(&self) -> bool {
        self.stuck
    }

    /// Writes what the socket will take; true once everything is written.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.stuck = true;
                    return Ok(false);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.written = 0;
        self.stuck = false;
        Ok(true)
    }

    /// Reads once into `scratch`, behind what the last read left over, and says how much is there;
    /// `None` if nothing can be read now.
    pub(crate) fn receive(&mut self, scratch: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let kept = self.tail.len();
        if scratch.len() < kept + READ {
            scratch.resize(kept + READ, 0);
        }
        scratch[..kept].copy_from_slice(&self.tail);
        match self.socket.read(&mut scratch[kept..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Ok(n) => Ok(Some(kept + n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Keeps what is not yet whole for the next read.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.tail.clear();
        self.tail.extend_from_slice(rest);
    }

    /// What was read and not yet understood.
    pub(crate) fn take_tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
