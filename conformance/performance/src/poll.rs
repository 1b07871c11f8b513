//! Waiting for sockets, by epoll, to the nanosecond.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The number the socket was added by.
    pub(crate) token: usize,
    pub(crate) writable: bool,
    pub(crate) readable: bool,
}

/// A set of sockets.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    /// An empty set.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    /// Adds a socket, to be told when it can be read.
    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token as u64), epoll::EventFlags::IN)?)
    }

    /// Whether to be told also when the socket can be written.
    pub(crate) fn watch_writes(&self, socket: impl AsFd, token: usize, on: bool) -> std::io::Result<()> {
        let flags = if on { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Waits at most `nanos` and writes what is ready to `ready`.
    pub(crate) fn wait(&mut self, nanos: u64, ready: &mut Vec<Ready>) -> std::io::Result<()> {
        if nanos > 0 {
            // epoll_wait counts in milliseconds; poll(2) on the epoll descriptor itself takes nanoseconds.
            let limit = Timespec::try_from(Duration::from_nanos(nanos)).ok();
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        ready.clear();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        ready.extend(self.events.iter().map(|&event| {
            // The kernel's struct is packed: take its fields by value.
            let (flags, data) = (event.flags, event.data);
            Ready {
                token: data.u64() as usize,
                writable: flags.contains(epoll::EventFlags::OUT),
                // An error or a hang-up is learnt by reading.
                readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP),
            }
        }));
        Ok(())
    }
}
