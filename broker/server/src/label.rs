//! Which connection a log line is about.
//!
//! A span for each connection would take 400 bytes of memory for as long as it lives, a tenth of what an idle device
//! costs, and be entered and left with each packet. So the thread remembers whose turn it is, and the log asks.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

thread_local! {
    static CURRENT: Cell<Option<Label>> = const { Cell::new(None) };
}

/// A connection, as log lines name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its number.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection{{id={} peer={}}}", self.id, self.peer)
    }
}

/// The connection that this thread serves at the moment.
pub fn current() -> Option<Label> {
    CURRENT.get()
}

pin_project! {
    /// A connection's life; while it runs, log lines are about that connection.
    pub struct Labelled<F> {
        label: Label,
        #[pin]
        life: F,
    }
}

impl<F: Future> Labelled<F> {
    /// A life with its label.
    pub fn new(label: Label, life: F) -> Self {
        Self { label, life }
    }
}

impl<F: Future> Future for Labelled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let before = CURRENT.replace(Some(*this.label));
        let polled = this.life.poll(cx);
        CURRENT.set(before);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_label_holds_while_its_life_runs() {
        let label = Label { id: 7, peer: "192.0.2.1:5".parse().unwrap() };
        let inside = Labelled::new(label, async {
            tokio::task::yield_now().await;
            current()
        });
        assert_eq!((inside.await, current()), (Some(label), None));
        assert_eq!(label.to_string(), "connection{id=7 peer=192.0.2.1:5}");
    }
}
