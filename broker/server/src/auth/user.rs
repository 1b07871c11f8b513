//! A user: name, tags, and what it may do in each vhost.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_core::access::Access;
use portolan_core::session::TOPICS;
use portolan_mqtt::topic;

use super::acl::{Acl, Way, Who};
use super::pattern::{Compiled, Pattern, TopicPattern};
use super::proof::Proof;
use crate::config;

/// A user who may log in.
pub struct UserRecord {
    name: Arc<str>,
    tags: Vec<String>,
    access: HashMap<String, Arc<VhostAccess>>,
    /// Of the file with Mosquitto's rules, if there is one.
    acl: Option<Arc<ArcSwap<Acl>>>,
    pub(super) proof: Proof,
}

impl UserRecord {
    /// Builds a user from its rows; the error is for the operator.
    pub(super) fn new(
        user: &config::User,
        proof: Proof,
        acl: Option<Arc<ArcSwap<Acl>>>,
        compiled: &Arc<Compiled>,
    ) -> Result<Self, String> {
        let name: Arc<str> = user.name.as_str().into();
        let impersonator = user.tags.iter().any(|tag| tag == "impersonator");
        let mut access = HashMap::new();
        for row in &user.permissions {
            let vhost = VhostAccess {
                user: name.clone(),
                impersonator,
                configure: Pattern::parse(&row.configure)?,
                write: Pattern::parse(&row.write)?,
                read: Pattern::parse(&row.read)?,
                topics: topics(user, &row.vhost, compiled)?,
            };
            access.insert(row.vhost.clone(), Arc::new(vhost));
        }
        Ok(Self { name, tags: user.tags.clone(), access, acl, proof })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it may do beside messaging.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Its rights in a vhost, for an MQTT client those that depend on its id, too; `None` when it may not enter.
    pub fn access(&self, vhost: &str, client: Option<Client<'_>>) -> Option<Arc<dyn Access>> {
        let access = Arc::clone(self.access.get(vhost)?);
        let Some(client) = client.filter(|_| self.acl.is_some() || access.by_client()) else {
            return Some(access);
        };
        let Client { id, anonymous } = client;
        Some(Arc::new(ClientAccess { access, client: id.into(), anonymous, acl: self.acl.clone() }))
    }
}

/// A client with an id of its own.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Its id.
    pub id: &'a str,
    /// It gave no name: the user is the one that anonymous clients are taken for.
    pub anonymous: bool,
}

fn topics(user: &config::User, vhost: &str, compiled: &Arc<Compiled>) -> Result<HashMap<String, TopicAccess>, String> {
    let mut topics = HashMap::new();
    let pattern = |text: &str| TopicPattern::parse(text, &user.name, vhost, compiled);
    for row in user.topic_permissions.iter().filter(|row| row.vhost == vhost) {
        let access = TopicAccess { write: pattern(&row.write)?, read: pattern(&row.read)? };
        topics.insert(row.exchange.clone(), access);
    }
    Ok(topics)
}

struct VhostAccess {
    user: Arc<str>,
    impersonator: bool,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    topics: HashMap<String, TopicAccess>,
}

struct TopicAccess {
    write: TopicPattern,
    read: TopicPattern,
}

impl VhostAccess {
    fn by_client(&self) -> bool {
        self.topics.values().any(|topic| topic.write.by_client() || topic.read.by_client())
    }

    fn may_write(&self, exchange: &str, key: &[u8], client: Option<&str>) -> bool {
        self.topics.get(exchange).is_none_or(|topic| topic.write.matches(key, client))
    }

    fn may_read(&self, exchange: &str, pattern: &[u8], client: Option<&str>) -> bool {
        self.topics.get(exchange).is_none_or(|topic| topic.read.matches(pattern, client))
    }
}

impl Access for VhostAccess {
    fn user(&self) -> &str {
        &self.user
    }

    fn configure(&self, name: &str) -> bool {
        self.configure.matches(name.as_bytes())
    }

    fn write(&self, name: &str) -> bool {
        self.write.matches(name.as_bytes())
    }

    fn read(&self, name: &str) -> bool {
        self.read.matches(name.as_bytes())
    }

    fn write_topic(&self, exchange: &str, key: &[u8]) -> bool {
        self.may_write(exchange, key, None)
    }

    fn read_topic(&self, exchange: &str, pattern: &[u8]) -> bool {
        self.may_read(exchange, pattern, None)
    }

    fn unrestricted(&self) -> bool {
        let all = [&self.configure, &self.write, &self.read];
        self.topics.is_empty() && all.iter().all(|pattern| matches!(pattern, Pattern::Everything))
    }

    fn impersonator(&self) -> bool {
        self.impersonator
    }
}

/// Rights of one client: its user's, with its id filled in, and within the rules of the ACL file.
struct ClientAccess {
    access: Arc<VhostAccess>,
    client: Arc<str>,
    anonymous: bool,
    acl: Option<Arc<ArcSwap<Acl>>>,
}

impl ClientAccess {
    /// Whether the file, if there is one, allows it. Keys of other exchanges are no topics.
    fn ruled(&self, exchange: &str, key: &[u8], way: Way) -> bool {
        let Some(acl) = self.acl.as_ref().filter(|_| exchange == TOPICS) else { return true };
        let mut name = String::with_capacity(key.len());
        topic::append_topic(key, &mut name);
        let user = Some(&*self.access.user).filter(|_| !self.anonymous);
        acl.load().allows(Who { user, client: &self.client }, &name, way)
    }
}

impl Access for ClientAccess {
    fn user(&self) -> &str {
        &self.access.user
    }

    fn configure(&self, name: &str) -> bool {
        self.access.configure(name)
    }

    fn write(&self, name: &str) -> bool {
        self.access.write(name)
    }

    fn read(&self, name: &str) -> bool {
        self.access.read(name)
    }

    fn write_topic(&self, exchange: &str, key: &[u8]) -> bool {
        self.access.may_write(exchange, key, Some(&self.client)) && self.ruled(exchange, key, Way::Write)
    }

    // The file does not refuse subscriptions, only what they would bring: a filter may match topics of either kind.
    fn read_topic(&self, exchange: &str, pattern: &[u8]) -> bool {
        self.access.may_read(exchange, pattern, Some(&self.client))
    }

    fn receive_topic(&self, exchange: &str, key: &[u8]) -> bool {
        self.ruled(exchange, key, Way::Read)
    }

    fn checks_deliveries(&self) -> bool {
        self.acl.is_some()
    }

    fn unrestricted(&self) -> bool {
        false
    }

    fn impersonator(&self) -> bool {
        self.access.impersonator()
    }
}
