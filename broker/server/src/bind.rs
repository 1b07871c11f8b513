//! Takes the addresses of the listeners, before anything slow begins, so that a port in use is known at once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::config::Addresses;

/// An address that is ours, though nobody can connect to it yet.
pub struct Bound {
    socket: Socket,
    address: SocketAddr,
}

/// An address that we cannot have.
#[derive(Debug, Error)]
#[error("cannot listen on {address} (listeners.{key}): {error}{}", advice(.error))]
pub struct Unavailable {
    key: &'static str,
    address: SocketAddr,
    error: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another broker may be running: stop it, or choose another address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

impl Bound {
    /// The address, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients connect. The listener does not block.
    ///
    /// # Errors
    /// When another process was quicker, or the system refuses.
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        self.socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(self.socket.into())
    }
}

/// Takes the addresses of the listener `key`. Where the machine has no IPv6, addresses of that family are passed over
/// with a log line as long as one of the other family remains.
///
/// # Errors
/// When an address is in use, not ours, or not allowed.
pub fn bind(key: &'static str, addresses: &Addresses) -> Result<Vec<Bound>, Unavailable> {
    let has_ipv4 = addresses.0.iter().any(SocketAddr::is_ipv4);
    let mut bound = Vec::new();
    for &address in &addresses.0 {
        match open(address) {
            Ok(one) => bound.push(one),
            Err(error) if address.is_ipv6() && has_ipv4 && no_such_family(&error) => {
                tracing::info!(listener = key, %address, %error, "this machine has no IPv6; going on without it");
            }
            Err(error) => return Err(Unavailable { key, address, error }),
        }
    }
    Ok(bound)
}

fn open(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Else `[::]` would take the IPv4 port too, and the other listener could not have it.
        socket.set_only_v6(true)?;
    }
    // Else a restart must wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket, address })
}

fn no_such_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Addresses {
        Addresses(texts.iter().map(|t| t.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_by_name() {
        let first = bind("amqp", &addresses(&["127.0.0.1:0"])).unwrap().remove(0);
        let address = first.address();
        let _listener = first.listen(16).unwrap();
        let error = bind("http", &Addresses(vec![address])).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("listeners.http") && error.contains("another broker"), "{error}");
    }

    #[tokio::test]
    async fn both_families_share_a_port_where_there_are_both() {
        let bound = bind("amqp", &addresses(&["0.0.0.0:0"])).unwrap();
        let port = bound[0].address().port();
        let both = bind("amqp", &addresses(&["127.0.0.1:0", &format!("[::]:{port}")])).unwrap();
        assert!((1..=2).contains(&both.len()));
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        assert!(bind("amqp", &addresses(&["192.0.2.1:0"])).is_err());
    }
}
