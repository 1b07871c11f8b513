//! The end of a connection: what it held goes back, its session goes on or ends, and its will is published or not.

use std::time::Duration;

use portolan_core::delivery::{Outcome, Settlement};
use portolan_core::engine::Ask;
use portolan_core::sessions::Leave;

use crate::codec::decode::{Auth, Disconnect};
use crate::engine::Connection;
use crate::handshake::Phase;
use crate::parked;
use crate::reason::Reason;
use crate::scram::{self, Scram, Step};

impl Connection {
    /// DISCONNECT: only the normal one throws the will away \[MQTT5-3.14.4-3\].
    pub(crate) fn disconnected(&mut self, disconnect: &Disconnect<'_>) -> Ask {
        if self.promise.expiry == 0 && disconnect.session_expiry.is_some_and(|expiry| expiry > 0) {
            return self.fail(Reason::ProtocolError, "the session's expiry was 0 at CONNECT and cannot be raised");
        }
        let expiry = disconnect.session_expiry.map(|expiry| expiry.min(self.settings.session_expiry_max));
        self.ended_for = Some(match disconnect.reason {
            Reason::Success => "the client disconnected",
            Reason::DisconnectWithWill => "the client disconnected and asked for its will",
            _ => "the client disconnected for an error of its own",
        });
        self.leave(disconnect.reason != Reason::Success, expiry);
        Ask::Close { after: Duration::ZERO }
    }

    /// AUTH in a running connection: a new proof of who the client is.
    pub(crate) fn reauthenticate(&mut self, auth: &Auth<'_>) -> Option<Ask> {
        let peer = self.outbox.lock().sessions.peer;
        if !self.promise.proven || auth.method != scram::METHOD {
            return Some(self.fail(Reason::ProtocolError, "AUTH does not fit how the client logged in"));
        }
        if auth.reason == Reason::ReAuthenticate {
            self.proving = Some(Box::new(Scram::First));
        }
        let Some(scram) = &mut self.proving else {
            return Some(self.fail(Reason::ProtocolError, "AUTH came without a beginning"));
        };
        match scram.step(auth.data.unwrap_or_default(), &*self.settings.directory) {
            Some(Step::Continue(data)) => {
                self.say_auth(peer, Reason::ContinueAuthentication, Some(&data));
                None
            }
            Some(Step::Proven { user, server_final })
                if self.account.as_ref().is_some_and(|account| account.name() == user) =>
            {
                self.proving = None;
                self.say_auth(peer, Reason::Success, Some(&server_final));
                None
            }
            _ => Some(self.fail(Reason::NotAuthorized, "the proof of the user's password is wrong")),
        }
    }

    /// Gives everything back and leaves the session; happens once.
    pub(crate) fn leave(&mut self, will: bool, expiry: Option<u32>) {
        let was = std::mem::replace(&mut self.phase, Phase::Over);
        if was != Phase::Running {
            if was != Phase::Over
                && let (Some(pending), Some(vhost)) = (self.pending.take(), &self.vhost)
            {
                self.broker.forgo_session(vhost, &pending.client, self.id);
                let ended_for = self.ended_for.unwrap_or("the connection ended before CONNACK");
                self.settings.observer.closed(self.id, &pending.client, ended_for);
            }
            return;
        }
        let (Some(session), Some(vhost)) = (self.session.clone(), self.vhost.clone()) else { return };
        let held = {
            let mut inner = self.outbox.lock();
            inner.sessions.leave();
            std::mem::take(&mut inner.sessions.held)
        };
        let ended_for = self.ended_for.unwrap_or("the connection ended");
        self.working(|this, work| {
            let consumers = this.own.take().into_iter().chain(this.memberships.drain(..).map(|one| one.consumer));
            for consumer in consumers {
                this.broker.unsubscribe(consumer, this.now, &mut work.effects);
            }
            // In the order of their packet ids nothing follows from; the queue puts each into its old place.
            let mut parked = Vec::new();
            for (packet_id, held) in held {
                match parked::of(packet_id, &held) {
                    Some(one) => parked.push(one),
                    None => {
                        work.settlements.push(Settlement { delivery: held.delivery, outcome: Outcome::Released });
                    }
                }
            }
            parked.sort_by_key(|one| std::cmp::Reverse(one.packet_id));
            session.park(parked);
            this.broker.settle(&work.settlements, this.now, &mut work.effects);
            work.settlements.clear();
            let leave = Leave { expiry, will };
            this.broker.leave_session(&vhost, &session, this.id, &leave, this.now, &mut work.effects);
        });
        tracing::debug!(client = &*session.client, reason = ended_for, "client disconnected");
        self.settings.observer.closed(self.id, &session.client, ended_for);
    }
}
