//! A user: name, tags, and what it may do in each vhost.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_core::access::Access;

use super::pattern::{Pattern, fill_in};
use super::proof::Proof;
use crate::config;

/// A user who may log in.
pub struct UserRecord {
    name: Arc<str>,
    tags: Vec<String>,
    access: HashMap<String, Arc<VhostAccess>>,
    pub(super) proof: Proof,
}

impl UserRecord {
    /// Builds a user from its rows; the error is for the operator.
    pub(super) fn new(user: &config::User, proof: Proof) -> Result<Self, String> {
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
                topics: topics(user, &row.vhost)?,
            };
            access.insert(row.vhost.clone(), Arc::new(vhost));
        }
        Ok(Self { name, tags: user.tags.clone(), access, proof })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it may do beside messaging.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Its rights in a vhost; `None` when it may not enter.
    pub fn access(&self, vhost: &str) -> Option<Arc<dyn Access>> {
        let access: Arc<dyn Access> = self.access.get(vhost)?.clone();
        Some(access)
    }
}

fn topics(user: &config::User, vhost: &str) -> Result<HashMap<String, TopicAccess>, String> {
    let mut topics = HashMap::new();
    for row in user.topic_permissions.iter().filter(|row| row.vhost == vhost) {
        let access = TopicAccess {
            write: Pattern::parse(&fill_in(&row.write, &user.name, vhost))?,
            read: Pattern::parse(&fill_in(&row.read, &user.name, vhost))?,
        };
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
    write: Pattern,
    read: Pattern,
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
        self.topics.get(exchange).is_none_or(|topic| topic.write.matches(key))
    }

    fn read_topic(&self, exchange: &str, pattern: &[u8]) -> bool {
        self.topics.get(exchange).is_none_or(|topic| topic.read.matches(pattern))
    }

    fn unrestricted(&self) -> bool {
        let all = [&self.configure, &self.write, &self.read];
        self.topics.is_empty() && all.iter().all(|pattern| matches!(pattern, Pattern::Everything))
    }

    fn impersonator(&self) -> bool {
        self.impersonator
    }
}
