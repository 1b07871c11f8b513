//! The threads that serve connections: a single-threaded runtime each, so that a connection stays where it began.
//!
//! A connection's readiness, its timers and its task belong to one thread. With a runtime that shares its tasks
//! between threads, each message at a low rate wakes a second thread to look for work that is not there, which costs
//! more processor time and more latency than the message itself.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// The runtimes, and whose turn it is to get a connection.
pub struct Workers {
    handles: Box<[Handle]>,
    next: AtomicUsize,
    /// Its end ends the threads.
    _alive: watch::Sender<()>,
}

impl Workers {
    /// Starts so many threads; 0 stands for one on each core.
    ///
    /// # Errors
    /// When the system has no thread or no file descriptor for them.
    pub fn start(threads: usize) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        let (alive, ended) = watch::channel(());
        let handles = (0..threads).map(|number| worker(number, ended.clone())).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: AtomicUsize::new(0), _alive: alive })
    }

    /// Whose turn it is.
    pub fn next(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.handles[turn % self.handles.len()]
    }
}

fn worker(number: usize, mut ended: watch::Receiver<()>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("portolan-{number}")).spawn(move || {
        // An error says that the other side is gone, which is what is waited for.
        runtime.block_on(async { while ended.changed().await.is_ok() {} });
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let workers = Workers::start(2).unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let send = send.clone();
            workers.next().spawn(async move { send.send(thread::current().name().map(str::to_owned)).unwrap() });
        }
        let mut names: Vec<_> = receive.iter().take(4).flatten().collect();
        names.sort();
        assert_eq!(names, ["portolan-0", "portolan-0", "portolan-1", "portolan-1"]);
    }
}
