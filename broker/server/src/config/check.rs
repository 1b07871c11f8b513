//! Rules that a single value's type cannot express.

use std::collections::HashSet;
use std::fmt;

use super::mqtt::Anonymous;
use super::schema::{Config, GUEST, User};
use super::suggest::shown;
use crate::auth;
use crate::logging;

/// A key whose value cannot be.
pub(super) struct Wrong {
    pub(super) path: String,
    message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", shown(&self.path), self.message)
    }
}

/// Finds all of them.
pub(super) fn wrong_values(config: &Config) -> Vec<Wrong> {
    let mut found = Found(Vec::new());
    found.limits(config);
    found.storage_and_logging(config);
    found.vhosts(config);
    found.mqtt(config);
    for (number, user) in config.users.iter().enumerate() {
        found.user(config, number, user);
    }
    found.0
}

struct Found(Vec<Wrong>);

impl Found {
    fn require(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push(Wrong { path: path.into(), message: message.into() });
        }
    }

    fn limits(&mut self, config: &Config) {
        let l = &config.limits;
        self.require(l.channels >= 1, "limits.channels", "at least 1");
        // AMQP 0-9-1 section 4.2.3: every peer accepts frames of 4096 bytes.
        self.require(l.frame_max >= 4096, "limits.frame_max", "at least 4096, which every AMQP client expects");
        self.require(l.frame_max <= 1 << 26, "limits.frame_max", "at most 67108864");
        self.require(l.heartbeat.0.as_secs() <= u64::from(u16::MAX), "limits.heartbeat", "at most 65535 seconds");
        let whole = l.heartbeat.0.subsec_nanos() == 0;
        self.require(whole, "limits.heartbeat", "AMQP counts heartbeats in whole seconds");
        self.require(!l.handshake_timeout.0.is_zero(), "limits.handshake_timeout", "more than 0");
        // Message offsets are 32 bits wide.
        self.require(l.message_max.0 <= 1 << 30, "limits.message_max", "at most 1 GiB");
        self.require((1..=128).contains(&l.table_depth), "limits.table_depth", "from 1 to 128");
        self.require(l.outbox_high.0 >= 4096, "limits.outbox_high", "at least 4 KiB");
        let order = l.outbox_low < l.outbox_high;
        self.require(order, "limits.outbox_low", "less than limits.outbox_high, or consumers pause for ever");
        for (key, value) in [
            ("connections", l.connections),
            ("consumers_per_channel", l.consumers_per_channel),
            ("queues", l.queues),
            ("exchanges", l.exchanges),
            ("bindings", l.bindings),
            ("table_entries", l.table_entries),
            ("unsettled_per_channel", l.unsettled_per_channel),
        ] {
            self.require(value >= 1, format!("limits.{key}"), "at least 1");
        }
    }

    fn storage_and_logging(&mut self, config: &Config) {
        let segment = config.storage.segment_bytes.0;
        let fits = (1 << 20..=1 << 31).contains(&segment);
        self.require(fits, "storage.segment_bytes", "from 1 MiB to 2 GiB");
        let s = &config.storage;
        self.require(s.write_bytes.0 >= 4096, "storage.write_bytes", "at least 4 KiB");
        self.require(s.buffer_bytes.0 >= 1 << 16, "storage.buffer_bytes", "at least 64 KiB");
        let order = s.backlog_bytes < s.buffer_bytes;
        self.require(
            order,
            "storage.backlog_bytes",
            "less than storage.buffer_bytes: publishers wait before any is refused",
        );
        self.require(s.clean_bytes_per_second.0 >= 1 << 20, "storage.clean_bytes_per_second", "at least 1 MiB");
        if let Err(message) = logging::parse_level(&config.logging.level) {
            self.require(false, "logging.level", message);
        }
        self.require(config.node.worker_threads <= 1024, "node.worker_threads", "at most 1024");
        self.require(!config.node.name.is_empty(), "node.name", "a name");
        self.require(config.amqp.product.len() <= 255, "amqp.product", "at most 255 bytes");
        self.require(config.amqp.version.len() <= 255, "amqp.version", "at most 255 bytes");
    }

    fn vhosts(&mut self, config: &Config) {
        self.require(!config.vhosts.is_empty(), "vhosts", "at least one");
        let mut names = HashSet::new();
        for (number, vhost) in config.vhosts.iter().enumerate() {
            let path = format!("vhosts.{number}.name");
            self.require((1..=255).contains(&vhost.name.len()), path.as_str(), "from 1 to 255 bytes");
            self.require(names.insert(&vhost.name), path, format!("there are two vhosts `{}`", vhost.name));
        }
    }

    fn mqtt(&mut self, config: &Config) {
        let m = &config.mqtt;
        let known = |vhost: &String| config.vhosts.iter().any(|v| v.name == *vhost);
        // Where there is no vhost `/`, clients must name theirs.
        let named = known(&m.vhost) || m.vhost == "/";
        self.require(named, "mqtt.vhost", format!("there is no vhost `{}`", m.vhost));
        for (port, vhost) in &m.vhosts {
            let at = format!("mqtt.vhosts.{port}");
            let number = port.parse::<u16>().is_ok_and(|number| number.to_string() == *port);
            self.require(number, at.as_str(), "write a port of listeners.mqtt and its vhost: 1884 = \"factory\"");
            let listening = config.listeners.mqtt.0.iter().any(|one| one.port().to_string() == *port);
            self.require(listening || !number, at.as_str(), format!("listeners.mqtt has no address with port {port}"));
            self.require(known(vhost), at, format!("there is no vhost `{vhost}`"));
        }
        let user = config.users.iter().any(|user| user.name == m.anonymous_user);
        let user = user || m.anonymous == Anonymous::Never || m.anonymous_user == GUEST;
        self.require(user, "mqtt.anonymous_user", format!("there is no user `{}`", m.anonymous_user));
        if !m.acl_file.as_os_str().is_empty()
            && let Err(message) = auth::Acl::load(&m.acl_file)
        {
            self.require(false, "mqtt.acl_file", message);
        }
        // A packet's length takes up to four bytes [MQTT 5, 1.5.5].
        let fits = (1 << 10..=(256 << 20) - 1 + 5).contains(&m.packet_max.0);
        self.require(fits, "mqtt.packet_max", "from 1 KiB to 256 MiB");
        for (key, period) in [("session_expiry_max", m.session_expiry_max), ("keep_alive_max", m.keep_alive_max)] {
            self.require(period.0.subsec_nanos() == 0, format!("mqtt.{key}"), "MQTT counts it in whole seconds");
        }
        let fits = m.session_expiry_max.0.as_secs() < u64::from(u32::MAX);
        self.require(fits, "mqtt.session_expiry_max", "less than 4294967295 seconds; 0 stands for ever");
        let fits = m.keep_alive_max.0.as_secs() <= u64::from(u16::MAX);
        self.require(fits, "mqtt.keep_alive_max", "at most 65535 seconds");
        self.require((23..=65_535).contains(&m.client_id_max), "mqtt.client_id_max", "from 23 to 65535");
        for (key, value) in [
            ("receive_max", usize::from(m.receive_max)),
            ("inflight_max", usize::from(m.inflight_max)),
            ("topic_levels", m.topic_levels),
            ("subscriptions", m.subscriptions),
        ] {
            self.require(value >= 1, format!("mqtt.{key}"), "at least 1");
        }
        let often = m.sys_interval.0.is_zero() || m.sys_interval.0.as_millis() >= 1000;
        self.require(often, "mqtt.sys_interval", "at least 1s, or 0 for never");
    }

    fn user(&mut self, config: &Config, number: usize, user: &User) {
        let at = |key: &str| format!("users.{number}.{key}");
        self.require((1..=255).contains(&user.name.len()), at("name"), "from 1 to 255 bytes");
        let first = config.users.iter().position(|u| u.name == user.name) == Some(number);
        self.require(first, at("name"), format!("there are two users `{}`", user.name));
        match (&user.password, &user.password_hash) {
            (Some(_), Some(_)) => {
                self.require(false, at("password"), "give either `password` or `password_hash`, not both");
            }
            (None, Some(hash)) => {
                if let Err(message) = auth::parse_hash(hash) {
                    self.require(false, at("password_hash"), message);
                }
            }
            (Some(_), None) => {}
            // RabbitMQ's users without a password log in by certificate; we have no such login yet.
            (None, None) => self.require(false, at("name"), "give a `password_hash` or a `password`"),
        }
        if let Some(text) = &user.scram_sha_256
            && let Err(message) = auth::parse_scram(text)
        {
            self.require(false, at("scram_sha_256"), message);
        }
        let known = |vhost: &String| config.vhosts.iter().any(|v| v.name == *vhost);
        for (row, permission) in user.permissions.iter().enumerate() {
            let at = |key: &str| format!("users.{number}.permissions.{row}.{key}");
            let message = format!("there is no vhost `{}`", permission.vhost);
            self.require(known(&permission.vhost), at("vhost"), message);
            self.pattern(at("configure"), &permission.configure);
            self.pattern(at("write"), &permission.write);
            self.pattern(at("read"), &permission.read);
        }
        for (row, permission) in user.topic_permissions.iter().enumerate() {
            let at = |key: &str| format!("users.{number}.topic_permissions.{row}.{key}");
            let message = format!("there is no vhost `{}`", permission.vhost);
            self.require(known(&permission.vhost), at("vhost"), message);
            self.pattern(at("write"), &auth::fill_in(&permission.write, &user.name, &permission.vhost, ""));
            self.pattern(at("read"), &auth::fill_in(&permission.read, &user.name, &permission.vhost, ""));
        }
    }

    fn pattern(&mut self, path: String, pattern: &str) {
        if let Err(message) = auth::Pattern::parse(pattern) {
            self.require(false, path, message);
        }
    }
}
