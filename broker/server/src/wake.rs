//! How other threads wake a connection's task.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use atomic_waker::AtomicWaker;

/// Remembers that the task was called, and wakes it. One task waits, any thread calls.
#[derive(Default)]
pub struct Wake {
    called: AtomicBool,
    waker: AtomicWaker,
}

impl Wake {
    /// Calls the task. Calls that come before it looks count as one.
    pub fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Waits for a call, and forgets it.
    pub async fn called(&self) {
        poll_fn(|cx| {
            if self.called.swap(false, Ordering::AcqRel) {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            // A call between the look and the registration woke nobody.
            if self.called.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_call_is_not_lost_whenever_it_comes() {
        let wake = Arc::new(Wake::default());
        wake.call();
        wake.call();
        wake.called().await;
        let caller = Arc::clone(&wake);
        let thread = std::thread::spawn(move || caller.call());
        wake.called().await;
        thread.join().unwrap();
    }
}
