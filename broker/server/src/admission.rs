//! How many connections there may be: in all, per address, per user and per vhost.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::access::Access;
use portolan_core::engine::{Account, Barred};

use crate::auth::{Client, UserRecord};
use crate::config::Limits;

/// Counts by key, with an upper bound; 0 bounds nothing and counts nothing.
struct Tally<K> {
    most: usize,
    counts: Mutex<HashMap<K, usize>>,
}

impl<K: Eq + Hash + Clone> Tally<K> {
    fn new(most: usize) -> Self {
        Self { most, counts: Mutex::default() }
    }

    fn enter(&self, key: &K) -> bool {
        if self.most == 0 {
            return true;
        }
        let mut counts = self.counts.lock();
        let count = counts.entry(key.clone()).or_insert(0);
        let free = *count < self.most;
        *count += usize::from(free);
        free
    }

    fn leave(&self, key: &K) {
        if self.most == 0 {
            return;
        }
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
            }
        }
    }
}

/// Who is in.
pub struct Admission {
    all: Tally<()>,
    addresses: Tally<IpAddr>,
    users: Tally<Arc<str>>,
    vhosts: Tally<Arc<str>>,
}

/// A connection's place; given back when dropped.
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            all: Tally::new(limits.connections),
            addresses: Tally::new(limits.connections_per_address),
            users: Tally::new(limits.connections_per_user),
            vhosts: Tally::new(limits.connections_per_vhost),
        })
    }

    /// A place for a connection from that address, if there is one.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = peer.ip().to_canonical();
        if !self.all.enter(&()) {
            return None;
        }
        if !self.addresses.enter(&address) {
            self.all.leave(&());
            return None;
        }
        Some(Place { admission: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.all.leave(&());
        self.admission.addresses.leave(&self.address);
    }
}

/// A user who is in, with the vhost that the connection entered.
pub struct Guest {
    user: Arc<UserRecord>,
    /// It gave no name of its own.
    anonymous: bool,
    admission: Arc<Admission>,
    vhost: Mutex<Option<Arc<str>>>,
}

impl Guest {
    /// A user who has logged in and not entered a vhost yet.
    pub fn new(user: Arc<UserRecord>, anonymous: bool, admission: Arc<Admission>) -> Self {
        Self { user, anonymous, admission, vhost: Mutex::new(None) }
    }
}

impl Account for Guest {
    fn name(&self) -> &str {
        self.user.name()
    }

    fn enter(&self, vhost: &str, client: Option<&str>) -> Result<Arc<dyn Access>, Barred> {
        let client = client.map(|id| Client { id, anonymous: self.anonymous });
        let access = self.user.access(vhost, client).ok_or(Barred::NoAccess)?;
        let vhost: Arc<str> = vhost.into();
        if !self.admission.vhosts.enter(&vhost) {
            return Err(Barred::VhostFull(self.admission.vhosts.most));
        }
        if !self.admission.users.enter(self.user.name()) {
            self.admission.vhosts.leave(&vhost);
            return Err(Barred::UserFull(self.admission.users.most));
        }
        *self.vhost.lock() = Some(vhost);
        Ok(access)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(vhost) = self.vhost.lock().take() {
            self.admission.vhosts.leave(&vhost);
            self.admission.users.leave(self.user.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let limits = Limits { connections: 2, connections_per_address: 1, ..Limits::default() };
        let admission = Admission::new(&limits);
        let peer = |text: &str| text.parse().expect("an address");
        let first = admission.admit(peer("10.0.0.1:1")).expect("free");
        assert!(admission.admit(peer("10.0.0.1:2")).is_none(), "one per address");
        let _second = admission.admit(peer("10.0.0.2:1")).expect("free");
        assert!(admission.admit(peer("10.0.0.3:1")).is_none(), "two in all");
        drop(first);
        assert!(admission.admit(peer("10.0.0.1:3")).is_some());
        assert!(admission.all.counts.lock().get(&()).is_some_and(|&count| count == 1));
    }
}
