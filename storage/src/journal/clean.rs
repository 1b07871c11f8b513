//! Gives disk space back: dead segments at the oldest end at once, mostly dead ones after moving what is live.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use portolan_core::store::Owner;

use crate::journal::Shared;

thread_local! {
    static CLEANING: Cell<bool> = const { Cell::new(false) };
}

/// This thread moves records so that space becomes free: lack of space is no reason to refuse it.
pub(crate) fn is_cleaning() -> bool {
    CLEANING.get()
}

#[derive(Default)]
struct Orders {
    owner: Option<Arc<dyn Owner>>,
    wanted: bool,
    closing: bool,
}

/// Tells the cleaning thread what to do.
#[derive(Default)]
pub(crate) struct Cleaner {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Cleaner {
    pub(crate) fn set_owner(&self, owner: Arc<dyn Owner>) {
        self.orders.lock().owner = Some(owner);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.orders.lock().wanted = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        let mut orders = self.orders.lock();
        orders.closing = true;
        orders.owner = None;
        self.changed.notify_all();
    }
}

pub(crate) fn run(shared: &Shared) {
    let mut orders = shared.cleaner.orders.lock();
    while !orders.closing {
        shared.cleaner.changed.wait(&mut orders);
    }
}
