//! Clients with sessions, as the tests about sessions and subscriptions use them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_core::catalogue::ConnectionId;
use portolan_core::consumer::Consumer;
use portolan_core::delivery::{ConsumerRef, Outcome};
use portolan_core::exchange::QueueTarget;
use portolan_core::refusal::Refusal;
use portolan_core::session::{Claim, Holder, Session, Subscription, TOPICS, Will};
use portolan_core::sessions::{Leave, Opened, SessionWish};
use portolan_core::store::StoreError;
use portolan_core::subscriptions::{Filter, Subscribed};

use crate::client::{Client, Got};
use crate::kit::{Kit, Post};

/// Writes down what its connection is told.
#[derive(Default)]
pub struct Link {
    displaced: AtomicUsize,
    granted: AtomicUsize,
}

impl Holder for Link {
    fn displaced(&self) {
        self.displaced.fetch_add(1, Ordering::SeqCst);
    }
    fn granted(&self) {
        self.granted.fetch_add(1, Ordering::SeqCst);
    }
}

impl Link {
    pub fn displaced(&self) -> usize {
        self.displaced.swap(0, Ordering::SeqCst)
    }
    pub fn granted(&self) -> usize {
        self.granted.swap(0, Ordering::SeqCst)
    }
}

/// What became of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    Fresh,
    Resumed,
    Wait,
}

/// A connection of a client.
pub struct Device {
    pub id: Arc<str>,
    pub connection: ConnectionId,
    pub link: Arc<Link>,
    pub client: Arc<Client>,
    /// Deliveries that may be unacknowledged.
    pub window: u32,
    session: RefCell<Option<Arc<Session>>>,
    consumers: RefCell<Vec<(QueueTarget, ConsumerRef)>>,
    held: RefCell<Vec<Got>>,
}

pub fn will(body: &str, delay: u32) -> Option<Will> {
    let body = body.as_bytes().to_vec();
    Some(Will { key: b"will.x".to_vec(), properties: vec![1], body, retain: false, delay, ttl: None })
}

pub const WITH_WILL: Leave = Leave { expiry: None, will: true };
pub const GOODBYE: Leave = Leave { expiry: None, will: false };

impl Device {
    pub fn new(id: &str, connection: u64) -> Self {
        Self {
            id: id.into(),
            connection: ConnectionId(connection),
            link: Arc::default(),
            client: Client::new(),
            window: 100,
            session: RefCell::default(),
            consumers: RefCell::default(),
            held: RefCell::default(),
        }
    }

    /// Connected with a session that is new.
    pub fn connected(kit: &Kit, id: &str, connection: u64, expiry: u32) -> Self {
        let device = Self::new(id, connection);
        assert_eq!(device.open(kit, true, expiry, None), Connected::Fresh);
        device
    }

    pub fn try_open(&self, kit: &Kit, clean: bool, expiry: u32, will: Option<Will>) -> Result<Connected, Refusal> {
        let claim = Claim { connection: self.connection, holder: Arc::clone(&self.link) as _ };
        let wish = SessionWish { client: &self.id, clean, expiry, will, claim };
        let opened = kit.as_caller(self.connection, |caller, effects| {
            kit.broker.open_session(&kit.vhost, wish, caller.now, effects)
        })?;
        Ok(match opened {
            Opened::Wait => Connected::Wait,
            Opened::Held { session, present, durable } => {
                assert!(durable.is_some() || session.view().expiry == 0, "what survives is written");
                *self.session.borrow_mut() = Some(session);
                if present { Connected::Resumed } else { Connected::Fresh }
            }
        })
    }

    pub fn open(&self, kit: &Kit, clean: bool, expiry: u32, will: Option<Will>) -> Connected {
        self.try_open(kit, clean, expiry, will).unwrap()
    }

    /// Comes back and gets what waits.
    pub fn resume(&self, kit: &Kit, expiry: u32) {
        assert_eq!(self.open(kit, false, expiry, None), Connected::Resumed);
        self.attach_all(kit);
    }

    pub fn session(&self) -> Arc<Session> {
        self.session.borrow().clone().expect("connected")
    }

    pub fn attach_all(&self, kit: &Kit) {
        let groups: Vec<_> = self.session().view().shared.into_iter().map(|(name, _)| name).collect();
        let queues = self.session().queue().into_iter().chain(groups.iter().filter_map(|name| kit.vhost.group(name)));
        queues.collect::<Vec<_>>().into_iter().for_each(|queue| self.attach(kit, queue));
        kit.load();
    }

    fn attach(&self, kit: &Kit, queue: QueueTarget) {
        if self.consumers.borrow().iter().any(|(known, _)| *known == queue) {
            return;
        }
        let consumer = Consumer {
            recipient: Arc::clone(&self.client) as _,
            session: 0,
            number: self.connection.0 as u32,
            settled: false,
            priority: 0,
            credit: Some(self.window),
            shared: None,
            exclusive: false,
        };
        let place = kit.as_caller(self.connection, |caller, effects| {
            kit.broker.attach(queue, consumer, caller.now, effects, |_| {})
        });
        self.consumers.borrow_mut().push((queue, place.expect("there")));
    }

    /// The connection ends: everything goes back.
    pub fn leave(&self, kit: &Kit, leave: &Leave) {
        for (_, consumer) in self.consumers.borrow_mut().drain(..) {
            kit.cancel(consumer);
        }
        self.take();
        kit.settle_all(self.held.borrow_mut().drain(..).map(|got| got.settle), Outcome::Released);
        kit.as_caller(self.connection, |caller, effects| {
            kit.broker.leave_session(&kit.vhost, &self.session(), self.connection, leave, caller.now, effects);
        });
        kit.load();
    }

    pub fn try_subscribe(&self, kit: &Kit, filter: Filter<'_>, how: Subscription) -> Result<Subscribed, StoreError> {
        kit.as_caller(self.connection, |caller, effects| {
            kit.broker.subscribe_session(&kit.vhost, &self.session(), &filter, how, caller.now, effects)
        })
    }

    /// True when there was no such subscription.
    pub fn subscribe_as(&self, kit: &Kit, filter: Filter<'_>, how: Subscription) -> bool {
        let subscribed = self.try_subscribe(kit, filter, how).unwrap();
        self.attach(kit, subscribed.queue);
        subscribed.new
    }

    pub fn subscribe(&self, kit: &Kit, pattern: &str, qos: u8) -> bool {
        self.subscribe_as(kit, own(pattern), Subscription { qos, ..Subscription::default() })
    }

    pub fn join(&self, kit: &Kit, group: &str, pattern: &str) -> bool {
        let filter = Filter { pattern: pattern.as_bytes(), group: Some(group) };
        self.subscribe_as(kit, filter, Subscription { qos: 1, ..Subscription::default() })
    }

    pub fn unsubscribe(&self, kit: &Kit, filter: Filter<'_>) -> bool {
        let queue = kit.as_caller(self.connection, |caller, effects| {
            kit.broker.unsubscribe_session(&kit.vhost, &self.session(), &filter, caller.now, effects)
        });
        if filter.group.is_some()
            && let Some(queue) = queue
        {
            let mut consumers = self.consumers.borrow_mut();
            consumers.extract_if(.., |(at, _)| *at == queue).for_each(|(_, consumer)| kit.cancel(consumer));
        }
        queue.is_some()
    }

    /// What came: bodies, with a star when redelivered.
    pub fn take(&self) -> Vec<String> {
        let got = self.client.take_all();
        let show = |got: &Got| match (got.released, got.redelivered) {
            (true, _) => got.body.clone() + "!",
            (false, true) => got.body.clone() + "*",
            (false, false) => got.body.clone(),
        };
        let bodies = got.iter().map(show).collect();
        self.held.borrow_mut().extend(got.into_iter().filter(|got| got.settle.is_some()));
        bodies
    }

    /// Takes over what it was given (PUBREC).
    pub fn take_over(&self, kit: &Kit) {
        let given: Vec<_> = self.held.borrow().iter().filter_map(|got| got.settle).collect();
        kit.as_caller(self.connection, |caller, effects| kit.broker.release(&given, caller.now, effects));
    }

    /// Acknowledges everything that it has taken.
    pub fn acknowledge(&self, kit: &Kit) {
        kit.settle_all(self.held.borrow_mut().drain(..).map(|got| got.settle), Outcome::Accepted);
    }
}

pub fn own(pattern: &str) -> Filter<'_> {
    Filter { pattern: pattern.as_bytes(), group: None }
}

/// Publishes to a topic.
pub fn publish(kit: &Kit, key: &str, posts: &[Post]) {
    kit.publish_to(TOPICS, key, posts);
}
