//! Who is connected by MQTT, and why others no longer are.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::catalogue::ConnectionId;
use portolan_mqtt::observe::{Observer, Opened};

use crate::time::now_ms;

/// Clients whose last disconnect is remembered.
const REMEMBERED: usize = 1000;
/// Bytes of a reason that are kept.
const REASON: usize = 256;

/// A connection and since when it is open, in milliseconds since the epoch.
#[derive(Clone, Debug)]
pub struct Online {
    /// The connection.
    pub id: ConnectionId,
    /// What it said when it connected.
    pub opened: Arc<Opened>,
    /// When that was.
    pub since: u64,
}

/// Why and when a client was disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// Why.
    pub reason: Arc<str>,
    /// When, in milliseconds since the epoch.
    pub at: u64,
}

/// The clients of all MQTT listeners.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    online: HashMap<ConnectionId, (Arc<Opened>, u64)>,
    /// The most that were online at a time.
    most: usize,
    /// All that ever were.
    opened: u64,
    partings: HashMap<Arc<str>, (Parting, u64)>,
    /// Clients by when they parted; one that parted again stands here twice, and its last number counts.
    order: VecDeque<(Arc<str>, u64)>,
    next: u64,
}

impl Clients {
    /// Everyone who is connected.
    pub fn online(&self) -> Vec<Online> {
        let state = self.state.lock();
        let online = state.online.iter();
        online.map(|(id, (opened, since))| Online { id: *id, opened: Arc::clone(opened), since: *since }).collect()
    }

    /// How many are connected, and the most that ever were.
    pub fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.online.len(), state.most)
    }

    /// How many have connected since the start.
    pub fn opened_in_all(&self) -> u64 {
        self.state.lock().opened
    }

    /// The connection of that number.
    pub fn find(&self, id: ConnectionId) -> Option<Online> {
        let (opened, since) = self.state.lock().online.get(&id).cloned()?;
        Some(Online { id, opened, since })
    }

    /// How a client was last disconnected, if that is not too long ago. Ids are not told apart by vhost.
    pub fn parting(&self, client: &str) -> Option<Parting> {
        self.state.lock().partings.get(client).map(|(parting, _)| parting.clone())
    }
}

impl Observer for Clients {
    fn opened(&self, connection: ConnectionId, opened: Opened) {
        let entry = (Arc::new(opened), now_ms());
        let mut state = self.state.lock();
        state.online.insert(connection, entry);
        state.opened += 1;
        state.most = state.most.max(state.online.len());
    }

    fn closed(&self, connection: ConnectionId, client: &str, reason: &str) {
        let reason = reason.char_indices().nth(REASON).map_or(reason, |(end, _)| &reason[..end]);
        let parting = Parting { reason: reason.into(), at: now_ms() };
        let mut state = self.state.lock();
        let gone = state.online.remove(&connection);
        if client.is_empty() {
            return;
        }
        state.part(gone.map_or_else(|| client.into(), |(opened, _)| Arc::clone(&opened.client)), parting);
    }
}

impl State {
    fn part(&mut self, client: Arc<str>, parting: Parting) {
        let number = self.next;
        self.next += 1;
        self.partings.insert(Arc::clone(&client), (parting, number));
        self.order.push_back((client, number));
        while self.order.len() > REMEMBERED {
            let Some((client, number)) = self.order.pop_front() else { return };
            if self.partings.get(&client).is_some_and(|(_, last)| *last == number) {
                self.partings.remove(&client);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use portolan_mqtt::codec::Version;

    use super::*;

    /// A client of that name that has connected.
    pub(crate) fn opened(client: &str) -> Opened {
        Opened {
            client: client.into(),
            user: "guest".into(),
            vhost: "/".into(),
            version: Version::V5,
            keep_alive: 60,
            peer: "192.0.2.1:1000".parse().unwrap(),
            clean: true,
            expiry: 0,
        }
    }

    #[test]
    fn who_comes_and_goes_is_seen() {
        let clients = Clients::default();
        clients.opened(ConnectionId(1), opened("a"));
        clients.opened(ConnectionId(2), opened("b"));
        clients.closed(ConnectionId(1), "a", "keep alive timeout");
        assert_eq!((clients.count(), clients.online().len(), clients.opened_in_all()), ((1, 2), 1, 2));
        assert_eq!(&*clients.find(ConnectionId(2)).unwrap().opened.client, "b");
        assert_eq!(&*clients.parting("a").unwrap().reason, "keep alive timeout");
        // One that was never accepted.
        clients.closed(ConnectionId(3), "c", "not authorized");
        assert_eq!(&*clients.parting("c").unwrap().reason, "not authorized");
        clients.closed(ConnectionId(4), "", "garbage");
        assert!(clients.parting("").is_none() && clients.parting("b").is_none());
    }

    #[test]
    fn partings_are_bounded_and_the_last_one_counts() {
        let clients = Clients::default();
        clients.closed(ConnectionId(0), "early", "first");
        for number in 0..5 * REMEMBERED {
            let id = ConnectionId(number as u64 + 1);
            clients.closed(id, "again", &number.to_string());
            clients.closed(id, &format!("client {number}"), &"x".repeat(10 * REASON));
        }
        let state = clients.state.lock();
        assert!(state.order.len() <= REMEMBERED && state.partings.len() <= REMEMBERED);
        drop(state);
        assert_eq!(&*clients.parting("again").unwrap().reason, (5 * REMEMBERED - 1).to_string());
        assert!(clients.parting("early").is_none());
        assert_eq!(clients.parting(&format!("client {}", 5 * REMEMBERED - 1)).unwrap().reason.len(), REASON);
    }
}
