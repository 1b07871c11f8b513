//! One socket with what is still to be written and what is not yet whole.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// Octets asked of the kernel by one read.
pub(crate) const READ: usize = 256 * 1024;

/// Connections from one address of the loopback interface. When half the ports of an address are taken, the kernel
/// looks through all of them for each connection more.
const PER_ADDRESS: usize = 4000;

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

    /// Connects as one of so many that they need more than one address to come from, if they have them.
    pub(crate) fn connect_as(number: usize, addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        let Some(source) = source(number, addr) else {
            return Self::connect(addr, patience);
        };
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        connect(&socket, &addr)?;
        Self::over(socket.into(), patience)
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

/// The address that connection number `number` comes from; `None` if that is left to the kernel.
fn source(number: usize, to: SocketAddr) -> Option<Ipv4Addr> {
    let host = u8::try_from(number / PER_ADDRESS).ok()?.checked_add(1)?;
    (host > 1 && matches!(to, SocketAddr::V4(to) if to.ip().is_loopback())).then(|| Ipv4Addr::new(127, 0, 0, host))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_come_from_several_addresses() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883));
        let far = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1883));
        for (number, to, from) in [
            (PER_ADDRESS - 1, loopback, None),
            (PER_ADDRESS, loopback, Some(Ipv4Addr::new(127, 0, 0, 2))),
            (19_000, loopback, Some(Ipv4Addr::new(127, 0, 0, 5))),
            (19_000, far, None),
            (usize::MAX, loopback, None),
        ] {
            assert_eq!(source(number, to), from, "{number}");
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Link::connect_as(PER_ADDRESS, listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, link.socket.local_addr().unwrap());
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 0, 2));
    }
}
