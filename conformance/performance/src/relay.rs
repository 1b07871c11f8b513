//! `relay`: the floor that the kernel sets. One thread reads the producer's bytes and writes as many to the consumer, unparsed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::trouble::Trouble;

/// Octets asked of the kernel at once.
const PIECE: usize = 256 * 1024;

/// Where to listen.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Relay {
    /// The address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
}

/// Serves one pair of connections after the other: the consumer's first, then the producer's.
pub(crate) fn relay(options: &Relay) -> Result<(), Trouble> {
    let listener = TcpListener::bind(options.listen)?;
    let mut piece = vec![0; PIECE];
    loop {
        let (consumer, _) = listener.accept()?;
        let (producer, _) = listener.accept()?;
        // One side closing its connection is how a pair ends.
        if let Err(e) = pass_on(producer, consumer, &mut piece)
            && !matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        {
            return Err(e.into());
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, piece: &mut [u8]) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    loop {
        let n = from.read(piece)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&piece[..n])?;
    }
}
