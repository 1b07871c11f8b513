//! From CONNECT to CONNACK: who the client is, what it may do, and its session.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::consumer::Consumer;
use portolan_core::effect::Effects;
use portolan_core::engine::{Account, Ask, Barred, Credentials};
use portolan_core::exchange::QueueTarget;
use portolan_core::refusal::Refusal;
use portolan_core::session::{Claim, Session, TOPICS, Will};
use portolan_core::sessions::{Opened, SessionWish};
use portolan_core::topology::Durable;
use rand::RngCore;

use crate::codec::decode::{self, Packet};
use crate::codec::encode::{self, Connack, Explanation, Peer};
use crate::codec::{Frame, Version, connect, property};
use crate::deliveries::OWN;
use crate::engine::{Connection, Membership};
use crate::flags;
use crate::observe;
use crate::reason::Reason;
use crate::scram::{self, Scram, Step};
use crate::topic;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CONNECT is awaited.
    Connect,
    /// The client proves who it is by AUTH packets.
    Proving,
    /// Credentials are being checked.
    LoggingIn,
    /// Another connection still has the session.
    Waiting,
    /// CONNACK was sent.
    Running,
    /// Nothing counts any more.
    Over,
}

/// What holds for as long as the connection lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promise {
    /// Seconds, 0 for none.
    pub(crate) keep_alive: u16,
    /// Seconds that the session is kept after the connection.
    pub(crate) expiry: u32,
    /// Deliveries that the client takes at a time.
    pub(crate) window: u16,
    /// The client logged in by AUTH, and may do so again.
    pub(crate) proven: bool,
}

/// What CONNECT said, until CONNACK.
pub(crate) struct Pending {
    pub(crate) client: Arc<str>,
    assigned: bool,
    clean: bool,
    keep_alive: u16,
    /// What the client asked for, and what it gets.
    asked_expiry: u32,
    expiry: u32,
    will: Option<Will>,
    receive_maximum: u16,
    alias_maximum: u16,
    peer: Peer,
    vhost: Arc<str>,
    anonymous: bool,
    scram: Option<Scram>,
    server_final: Option<Vec<u8>>,
}

impl Connection {
    /// A packet before CONNACK.
    pub(crate) fn before_running(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        match self.phase {
            Phase::Connect if frame.is_connect() => self.connect(frame),
            Phase::Proving => self.prove(frame),
            Phase::Connect => Some(self.refuse_silently("the first packet was not CONNECT")),
            // A client may send on before it has read CONNACK [MQTT5-3.1.4]; what it sends waits for us.
            _ => Some(self.refuse_silently("packets came before the session was free")),
        }
    }

    fn connect(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        let connect = match connect::decode(frame) {
            Ok(connect) => connect,
            Err(refused) => {
                let malformed = refused.malformed;
                return Some(match refused.answer {
                    Some(version) => {
                        self.version = version;
                        self.refuse(Peer::new(version), malformed.reason, malformed.text)
                    }
                    None => self.refuse_silently(malformed.text),
                });
            }
        };
        self.version = connect.version;
        let asked = &connect.properties;
        let peer = Peer {
            version: connect.version,
            max_packet: asked.maximum_packet_size.unwrap_or(u32::MAX),
            problem_information: asked.request_problem_information,
        };
        if let Err((reason, text)) = self.check(&connect) {
            return Some(self.refuse(peer, reason, text));
        }
        let (vhost, user) = self.vhost_and_user(connect.user_name);
        let pending = self.pending_of(&connect, peer, vhost, user.is_none() && connect.password.is_none());
        let pending = self.pending.insert(Box::new(pending));
        if let Some(method) = asked.authentication_method {
            if method != scram::METHOD {
                let text = "the authentication method is not known; use SCRAM-SHA-256, or a user name and password";
                return Some(self.refuse(peer, Reason::BadAuthenticationMethod, text));
            }
            pending.scram = Some(Scram::First);
            self.phase = Phase::Proving;
            return self.proof(asked.authentication_data);
        }
        self.phase = Phase::LoggingIn;
        Some(Ask::Login(match (user, connect.password) {
            (None, None) => Credentials::Anonymous,
            (user, password) => Credentials::Password {
                user: user.unwrap_or_default().to_owned(),
                password: password.unwrap_or_default().to_vec(),
            },
        }))
    }

    /// What is well written and still not taken.
    fn check(&self, connect: &connect::Connect<'_>) -> Result<(), (Reason, &'static str)> {
        if connect.client_id.len() > self.settings.client_id_max {
            return Err((Reason::ClientIdentifierNotValid, "the client id is too long (mqtt.client_id_max)"));
        }
        let Some(will) = &connect.will else { return Ok(()) };
        if topic::levels(will.topic) > self.settings.topic_levels {
            return Err((Reason::TopicNameInvalid, "the will's topic has too many levels (mqtt.topic_levels)"));
        }
        if !will.payload_is_as_declared() {
            return Err((Reason::PayloadFormatInvalid, "the will's payload is not the UTF-8 that it is said to be"));
        }
        Ok(())
    }

    /// `vhost:user` names both, as RabbitMQ has it; the vhost must exist, else the colon is part of the name.
    fn vhost_and_user<'a>(&self, name: Option<&'a str>) -> (Arc<str>, Option<&'a str>) {
        let named = name.and_then(|name| name.rsplit_once(':'));
        match named.filter(|(vhost, _)| self.broker.vhost(vhost).is_some()) {
            Some((vhost, user)) => (vhost.into(), Some(user)),
            None => (Arc::clone(&self.settings.vhost), name),
        }
    }

    fn pending_of(&self, connect: &connect::Connect<'_>, peer: Peer, vhost: Arc<str>, anonymous: bool) -> Pending {
        let assigned = connect.client_id.is_empty();
        let asked_expiry = match connect.version {
            Version::V5 => connect.properties.session_expiry,
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        Pending {
            client: if assigned { made_up_id() } else { connect.client_id.into() },
            assigned,
            clean: connect.clean_start,
            keep_alive: connect.keep_alive,
            asked_expiry,
            expiry: asked_expiry.min(self.settings.session_expiry_max),
            will: connect.will.as_ref().map(will_of),
            receive_maximum: connect.properties.receive_maximum,
            alias_maximum: connect.properties.topic_alias_maximum,
            peer,
            vhost,
            anonymous,
            scram: None,
            server_final: None,
        }
    }

    fn prove(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        let peer = self.pending.as_ref()?.peer;
        match decode::decode(frame, self.version) {
            Ok(Packet::Auth(auth)) if auth.method == scram::METHOD => self.proof(auth.data),
            Ok(Packet::Disconnect(_)) => Some(self.refuse_silently("the client gave up proving who it is")),
            Ok(_) => Some(self.refuse(peer, Reason::ProtocolError, "only AUTH and DISCONNECT may come before CONNACK")),
            Err(malformed) => Some(self.refuse(peer, malformed.reason, malformed.text)),
        }
    }

    fn proof(&mut self, data: Option<&[u8]>) -> Option<Ask> {
        let pending = self.pending.as_mut()?;
        let peer = pending.peer;
        let data = match data {
            Some(data) => data,
            None => {
                // The client waits for our first word; SCRAM's is empty.
                self.say_auth(peer, Reason::ContinueAuthentication, None);
                return None;
            }
        };
        match pending.scram.as_mut()?.step(data, &*self.settings.directory) {
            Some(Step::Continue(data)) => {
                self.say_auth(peer, Reason::ContinueAuthentication, Some(&data));
                None
            }
            Some(Step::Proven { user, server_final }) => {
                pending.server_final = Some(server_final);
                self.phase = Phase::LoggingIn;
                Some(Ask::Login(Credentials::Proven { user }))
            }
            None => Some(self.refuse(peer, Reason::NotAuthorized, "the proof of the user's password is wrong")),
        }
    }

    pub(crate) fn say_auth(&self, peer: Peer, reason: Reason, data: Option<&[u8]>) {
        encode::auth(&mut self.outbox.lock().out().bytes, peer, reason, scram::METHOD, data, Explanation::NONE);
    }

    /// The answer of whoever checks credentials.
    pub(crate) fn logged_in(&mut self, account: Option<Arc<dyn Account>>) -> Ask {
        let Some(pending) = &self.pending else { return self.refuse_silently("nobody asked to log in") };
        let (peer, client) = (pending.peer, Arc::clone(&pending.client));
        let Some(account) = account else {
            return match pending.anonymous {
                true => self.refuse(peer, Reason::NotAuthorized, "log in with a user name and password"),
                false => self.refuse(peer, Reason::BadUserNameOrPassword, "the user name or password is wrong"),
            };
        };
        let access = match account.enter(&pending.vhost, Some(&client)) {
            Ok(access) => access,
            Err(Barred::NoAccess) => {
                return self.refuse(peer, Reason::NotAuthorized, "the user may not enter this vhost");
            }
            Err(Barred::VhostFull(_) | Barred::UserFull(_)) => {
                return self.refuse(peer, Reason::QuotaExceeded, "the vhost or the user has too many connections");
            }
        };
        let may_will = pending
            .will
            .as_ref()
            .is_none_or(|will| access.unrestricted() || access.write(TOPICS) && access.write_topic(TOPICS, &will.key));
        self.vhost = self.broker.vhost(&pending.vhost);
        self.account = Some(account);
        self.access = Some(access);
        if !may_will {
            return self.refuse(peer, Reason::NotAuthorized, "the user may not publish to the will's topic");
        }
        self.open()
    }

    /// Gets hold of the session.
    fn open(&mut self) -> Ask {
        let link = self.link();
        let (Some(pending), Some(vhost)) = (&self.pending, self.vhost.clone()) else {
            return self.refuse_silently("there is no such vhost");
        };
        let claim = Claim { connection: self.id, holder: link };
        let Pending { clean, expiry, peer, .. } = **pending;
        let wish = SessionWish { client: &pending.client, clean, expiry, will: pending.will.clone(), claim };
        let mut effects = Effects::default();
        let opened = self.broker.open_session(&vhost, wish, self.now, &mut effects);
        self.broker.carry_out(&mut effects, self.now);
        match opened {
            Ok(Opened::Held { session, present, durable }) => self.accept(session, present, durable),
            Ok(Opened::Wait) => {
                self.phase = Phase::Waiting;
                Ask::Hold
            }
            Err(Refusal::Limit { what, limit }) => {
                tracing::warn!(client = %pending.client, limit, "too many {what}");
                self.refuse(peer, Reason::QuotaExceeded, "there are too many sessions")
            }
            Err(error) => {
                tracing::warn!(?error, "cannot open a session");
                self.refuse(peer, Reason::ServerUnavailable, "the store takes nothing at the moment")
            }
        }
    }

    fn accept(&mut self, session: Arc<Session>, present: bool, durable: Durable) -> Ask {
        let Some(pending) = self.pending.take() else { return self.refuse_silently("nobody asked for a session") };
        let window = pending.receive_maximum.min(self.settings.inflight_max);
        let keep_alive = match (self.settings.keep_alive_max, pending.keep_alive) {
            (0, asked) => asked,
            // It cannot be told, and would be ended for what it does not know.
            (_, asked) if self.version != Version::V5 => asked,
            (most, 0) => most,
            (most, asked) => asked.min(most),
        };
        self.promise = Promise { keep_alive, expiry: pending.expiry, window, proven: pending.scram.is_some() };
        if present {
            self.refresh_grants(&session);
        }
        {
            let mut inner = self.outbox.lock();
            let (deliveries, _) = inner.parts();
            deliveries.peer = pending.peer;
            deliveries.window = window;
            deliveries.lasting = pending.expiry > 0;
            deliveries.set_aliases(pending.alias_maximum.min(self.settings.topic_alias_out));
            deliveries.access = self.access.clone().filter(|access| access.checks_deliveries());
            if let Some(index) = durable {
                inner.hold(index);
            }
            let connack = self.connack(&pending, present, keep_alive);
            encode::connack(&mut inner.out().bytes, pending.peer, &connack);
        }
        self.phase = Phase::Running;
        self.session = Some(Arc::clone(&session));
        self.observe_opening(&pending, keep_alive);
        if present {
            self.go_on(&session);
        }
        Ask::More
    }

    fn connack<'a>(&self, pending: &'a Pending, present: bool, keep_alive: u16) -> Connack<'a> {
        let settings = &self.settings;
        let receive = settings.receive_max;
        Connack {
            session_present: present,
            session_expiry: (pending.expiry != pending.asked_expiry).then_some(pending.expiry),
            receive_maximum: (receive < u16::MAX).then_some(receive),
            maximum_packet_size: Some(settings.max_packet),
            assigned_client_id: pending.assigned.then_some(&*pending.client),
            topic_alias_maximum: (settings.topic_alias_max > 0).then_some(settings.topic_alias_max),
            server_keep_alive: (keep_alive != pending.keep_alive).then_some(keep_alive),
            authentication_method: pending.scram.as_ref().map(|_| scram::METHOD),
            authentication_data: pending.server_final.as_deref(),
            ..Connack::new(Reason::Success)
        }
    }

    fn observe_opening(&self, pending: &Pending, keep_alive: u16) {
        let user = self.account.as_ref().map_or("", |account| account.name());
        tracing::debug!(client = &*pending.client, user, vhost = &*pending.vhost, "client connected");
        self.settings.observer.opened(
            self.id,
            observe::Opened {
                client: Arc::clone(&pending.client),
                user: user.into(),
                vhost: Arc::clone(&pending.vhost),
                version: self.version,
                keep_alive,
                peer: self.peer,
                clean: pending.clean,
                expiry: pending.expiry,
            },
        );
    }

    /// Resumes what waits in a session that was there before.
    fn go_on(&mut self, session: &Session) {
        self.unpark(session);
        if let Some(queue) = session.queue() {
            self.attach_own(queue);
        }
        let Some(vhost) = self.vhost.clone() else { return };
        for (group, subscription) in session.view().shared {
            if let Some(queue) = vhost.group(&group) {
                self.attach_group(&group, queue, subscription);
            }
        }
    }

    fn consumer(&self, number: u32) -> Consumer {
        Consumer {
            recipient: Arc::clone(&self.recipient),
            session: 0,
            number,
            settled: false,
            priority: 0,
            credit: Some(u32::from(self.promise.window)),
            shared: None,
            exclusive: false,
        }
    }

    /// Starts to deliver from the session's own queue.
    pub(crate) fn attach_own(&mut self, queue: QueueTarget) {
        if self.own.is_none() {
            let consumer = self.consumer(OWN);
            self.own =
                self.working(|this, work| this.broker.attach(queue, consumer, this.now, &mut work.effects, |_| {}));
        }
    }

    /// Starts to deliver from a group's queue.
    pub(crate) fn attach_group(
        &mut self,
        group: &str,
        queue: QueueTarget,
        subscription: portolan_core::session::Subscription,
    ) {
        let known = self.memberships.iter().find(|one| *one.group == *group).map(|one| one.number);
        let taken = |number: &u32| self.memberships.iter().any(|one| one.number == *number);
        let number = known.or_else(|| (OWN + 1..).find(|number| !taken(number))).unwrap_or(OWN + 1);
        self.outbox.lock().sessions.grants.join(number, subscription);
        if known.is_some() {
            return;
        }
        let consumer = self.consumer(number);
        let at = self.working(|this, work| this.broker.attach(queue, consumer, this.now, &mut work.effects, |_| {}));
        if let Some(consumer) = at {
            self.memberships.push(Membership { group: group.into(), number, consumer });
        }
    }

    /// What the link to other connections says: to end, or that the session is free. `None` when nothing.
    pub(crate) fn link_says(&mut self) -> Option<Ask> {
        use std::sync::atomic::Ordering;
        let link = self.link.clone()?;
        if link.displaced.swap(false, Ordering::AcqRel) {
            return Some(match self.phase {
                Phase::Running => self.fail(Reason::SessionTakenOver, "another connection uses this client id"),
                _ => self.refuse_silently("another connection uses this client id"),
            });
        }
        if self.phase == Phase::Waiting && link.granted.swap(false, Ordering::AcqRel) {
            let ask = self.open();
            self.outbox.await_durable();
            return Some(ask);
        }
        None
    }

    /// What to ask of the transport when nothing changed.
    pub(crate) fn still(&self) -> Ask {
        let waits = self.phase == Phase::Waiting || self.rate.is_exceeded(self.now);
        if waits { Ask::Hold } else { Ask::More }
    }

    /// Answers CONNECT with a refusal.
    fn refuse(&mut self, peer: Peer, reason: Reason, text: &'static str) -> Ask {
        let connack = Connack { explanation: Explanation::text(text), ..Connack::new(reason) };
        encode::connack(&mut self.outbox.lock().out().bytes, peer, &connack);
        self.refused(reason.name(), text)
    }

    /// Ends the connection without a word.
    pub(crate) fn refuse_silently(&mut self, text: &'static str) -> Ask {
        self.refused("", text)
    }

    fn refused(&mut self, reason: &'static str, text: &'static str) -> Ask {
        let client = self.pending.as_ref().map(|pending| Arc::clone(&pending.client));
        tracing::warn!(client = client.as_deref(), reason, text, "connection refused");
        if let Some(client) = client {
            if let (Phase::Waiting, Some(vhost)) = (self.phase, &self.vhost) {
                self.broker.forgo_session(vhost, &client, self.id);
            }
            self.settings.observer.closed(self.id, &client, text);
        }
        self.pending = None;
        self.phase = Phase::Over;
        Ask::Close { after: Duration::ZERO }
    }
}

/// The will as the core keeps it.
fn will_of(will: &connect::Will<'_>) -> Will {
    let mut key = Vec::with_capacity(will.topic.len());
    topic::append_key(will.topic, &mut key);
    let mut properties = Vec::new();
    flags::put(&mut properties, will.qos, will.retain);
    properties.extend_from_slice(&property::travelling(will.properties));
    Will {
        key,
        properties,
        body: will.payload.to_vec(),
        retain: will.retain,
        delay: will.delay,
        ttl: will.expiry.map(|seconds| u64::from(seconds) * 1000),
    }
}

fn made_up_id() -> Arc<str> {
    let mut random = [0; 16];
    rand::rng().fill_bytes(&mut random);
    let mut id = String::from("auto-");
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id.into()
}
