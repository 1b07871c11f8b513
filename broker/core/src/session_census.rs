//! Sessions counted, for operators.

use crate::catalogue::Vhost;

/// The sessions of a vhost in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCensus {
    /// Sessions.
    pub sessions: u64,
    /// Of these, those that a connection has.
    pub held: u64,
    /// Subscriptions that a session has for itself.
    pub own: u64,
    /// Those that it shares with others.
    pub shared: u64,
}

impl Vhost {
    /// Counts its sessions. Takes each one's lock for a moment.
    pub fn session_census(&self) -> SessionCensus {
        let mut census = SessionCensus::default();
        for session in self.all_sessions() {
            let state = session.state.lock();
            census.sessions += 1;
            census.held += u64::from(state.holder.is_some());
            census.own += state.subscriptions.len() as u64;
            census.shared += state.shared.len() as u64;
        }
        census
    }
}

impl std::ops::AddAssign for SessionCensus {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.held += other.held;
        self.own += other.own;
        self.shared += other.shared;
    }
}
