//! From the protocol header to connection.open: who the client is, what it can do, and which vhost it wants.

use std::sync::Arc;

use portolan_core::engine::{Account, Ask, Barred, Credentials};
use portolan_core::value::{Table, Value};

use crate::codec::encode::ServerMethod;
use crate::codec::frame::{Frame, FrameKind};
use crate::codec::method::{self, Method};
use crate::codec::{Limits, table};
use crate::engine::{Connection, SILENCE};
use crate::refusal::Failure;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known of the client.
    Header,
    /// We sent connection.start.
    Start,
    /// Credentials are being checked.
    Login,
    /// We sent connection.tune.
    Tune,
    /// The client agreed to it.
    Open,
    /// In use.
    Running,
    /// We sent connection.close.
    Closing,
}

/// The header of the only version that we speak here; also the answer to any other.
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// An older way to write 0-9-1.
const OLD_HEADER: &[u8; 8] = b"AMQP\x01\x01\x00\x09";
/// The smallest frame size that a client may ask for: RabbitMQ's up to 4.0, and what amqplib asks for.
const FRAME_MIN: u32 = 4096;

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl Connection {
    /// Takes the first eight bytes.
    pub(crate) fn protocol_header(&mut self, input: &[u8]) -> (usize, Ask) {
        let Some(header) = input.first_chunk::<8>() else {
            // Bytes that can become no header need no waiting.
            let known = HEADER.starts_with(input) || OLD_HEADER.starts_with(input) || b"AMQP".starts_with(input);
            return if known || input.starts_with(b"AMQP") { (0, Ask::More) } else { self.other_protocol(input) };
        };
        if header != HEADER && header != OLD_HEADER {
            return self.other_protocol(input);
        }
        self.phase = Phase::Start;
        let server_properties = self.server_properties();
        let server_properties = &server_properties;
        let start = ServerMethod::Start { server_properties, mechanisms: "PLAIN AMQPLAIN", locales: "en_US" };
        self.say(0, start);
        self.outbox.flush();
        (header.len(), Ask::More)
    }

    fn other_protocol(&mut self, input: &[u8]) -> (usize, Ask) {
        let guess = match input {
            [0x16, 3, ..] => "a TLS client: this port is not encrypted",
            [b'G', b'E', b'T', ..] | [b'P', b'O', b'S', b'T', ..] => "an HTTP client: the HTTP port is another one",
            _ => "no AMQP 0-9-1 client",
        };
        tracing::warn!("connection closed: this looks like {guess}");
        self.outbox.lock().out().bytes.extend_from_slice(HEADER);
        self.outbox.flush();
        (input.len(), Ask::Close { after: std::time::Duration::ZERO })
    }

    fn server_properties(&self) -> Table {
        let capabilities = CAPABILITIES.iter().map(|&name| (name.into(), Value::Bool(true))).collect();
        let text = |name: &str, text: &str| (name.into(), Value::text(text));
        Table(vec![
            ("capabilities".into(), Value::Table(Table(capabilities))),
            text("cluster_name", "portolan"),
            text("copyright", "The Portolan authors"),
            text("information", "Licensed under Apache-2.0"),
            text("platform", concat!("Portolan ", env!("CARGO_PKG_VERSION"))),
            text("product", &self.settings.product),
            text("version", &self.settings.version),
        ])
    }

    /// A frame before the connection is open. Anything out of order ends it without a word, as in RabbitMQ.
    pub(crate) fn frame_in_handshake(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        if frame.kind == FrameKind::Heartbeat {
            return None;
        }
        let method = match frame.kind {
            FrameKind::Method if frame.channel == 0 => method::decode(frame.payload, self.settings.tables).ok(),
            _ => None,
        };
        match (self.phase, method) {
            (Phase::Start, Some(Method::StartOk { client_properties, mechanism, response, .. })) => {
                self.start_ok(&client_properties, &mechanism, &response)
            }
            (Phase::Tune, Some(Method::TuneOk { channel_max, frame_max, heartbeat })) => {
                self.tune_ok(channel_max, frame_max, heartbeat)
            }
            (Phase::Open, Some(Method::ConnectionOpen { vhost })) => self.open(&vhost),
            (Phase::Tune | Phase::Open, Some(Method::ConnectionClose(_))) => {
                self.say(0, ServerMethod::ConnectionCloseOk);
                Some(Ask::Close { after: std::time::Duration::ZERO })
            }
            _ => Some(silently("unexpected frame during the handshake")),
        }
    }

    fn start_ok(&mut self, client_properties: &Table, mechanism: &str, response: &[u8]) -> Option<Ask> {
        let capable = |name: &str| match client_properties.get("capabilities") {
            Some(Value::Table(table)) => table.get(name) == Some(&Value::Bool(true)),
            _ => false,
        };
        self.wants_login_refusal = capable("authentication_failure_close");
        self.wants_blocked = capable("connection.blocked");
        self.outbox.lock().sessions.cancel_notify = capable("consumer_cancel_notify");
        let product = client_properties.get("product").and_then(Value::as_text).unwrap_or_default();
        let name = client_properties.get("connection_name").and_then(Value::as_text).unwrap_or_default();
        tracing::debug!(product, name, "client says hello");
        let credentials = match mechanism {
            "PLAIN" => plain(response),
            "AMQPLAIN" => amqplain(response, self.settings.tables),
            _ => None,
        };
        match credentials {
            Some(credentials) => {
                self.phase = Phase::Login;
                Some(Ask::Login(credentials))
            }
            None => Some(silently("unknown mechanism or garbled credentials")),
        }
    }

    /// The answer of whoever checks credentials.
    pub(crate) fn logged_in(&mut self, account: Option<Arc<dyn Account>>) -> Ask {
        if let Some(account) = account {
            self.account = Some(account);
            self.phase = Phase::Tune;
            let settings = Arc::clone(&self.settings);
            self.say(
                0,
                ServerMethod::Tune {
                    channel_max: settings.channel_max,
                    frame_max: settings.frame_max,
                    heartbeat: settings.heartbeat,
                },
            );
            return Ask::More;
        }
        if !self.wants_login_refusal {
            return silently("login refused");
        }
        let text = "Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
        self.fail((0, 0), &Failure::connection(403, text))
    }

    fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) -> Option<Ask> {
        let settings = &self.settings;
        if frame_max > settings.frame_max || frame_max < FRAME_MIN {
            return Some(silently(&format!(
                "negotiation failed: frame_max {frame_max} is not between {FRAME_MIN} and {}",
                settings.frame_max
            )));
        }
        if channel_max == 0 || channel_max > settings.channel_max {
            return Some(silently(&format!(
                "negotiation failed: channel_max {channel_max} is not between 1 and {}",
                settings.channel_max
            )));
        }
        self.frame_max = frame_max as usize;
        self.channel_max = channel_max;
        self.heartbeat_ms = u64::from(heartbeat) * 1000;
        self.outbox.lock().sessions.set_frame_max(frame_max as usize);
        self.phase = Phase::Open;
        None
    }

    fn open(&mut self, name: &str) -> Option<Ask> {
        let ids = (10, 40);
        let user = self.account.as_ref().map(|account| account.name().to_owned()).unwrap_or_default();
        let Some(vhost) = self.broker.vhost(name) else {
            return Some(self.fail(ids, &Failure::connection(530, format!("vhost {name} not found"))));
        };
        let entered = self.account.as_ref().map_or(Err(Barred::NoAccess), |account| account.enter(name, None));
        let access = match entered {
            Ok(access) => access,
            Err(barred) => return Some(self.fail(ids, &Failure::connection(530, barred_text(barred, name, &user)))),
        };
        self.vhost = Some(vhost);
        self.access = Some(access);
        self.phase = Phase::Running;
        self.say(0, ServerMethod::ConnectionOpenOk);
        tracing::debug!(user, vhost = name, "client connected");
        None
    }
}

fn barred_text(barred: Barred, vhost: &str, user: &str) -> String {
    let refused = format!("access to vhost '{vhost}' refused for user '{user}'");
    match barred {
        Barred::NoAccess => refused,
        Barred::VhostFull(limit) => format!("{refused}: connection limit ({limit}) is reached"),
        Barred::UserFull(limit) => {
            format!("connection refused for user '{user}': user connection limit ({limit}) is reached")
        }
    }
}

fn silently(why: &str) -> Ask {
    tracing::warn!("connection closed: {why}");
    Ask::Close { after: SILENCE }
}

/// PLAIN: authorisation identity, user and password, NUL between them. RabbitMQ refuses a non-empty identity.
fn plain(response: &[u8]) -> Option<Credentials> {
    let mut parts = response.split(|&byte| byte == 0);
    let (identity, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if !identity.is_empty() || parts.next().is_some() {
        return None;
    }
    Some(Credentials::Password { user: String::from_utf8(user.to_vec()).ok()?, password: password.to_vec() })
}

/// AMQPLAIN: a table without its length.
fn amqplain(response: &[u8], limits: Limits) -> Option<Credentials> {
    let table = table::read(response, limits).ok()?;
    let Some(Value::Text(password)) = table.get("PASSWORD") else { return None };
    Some(Credentials::Password { user: table.get("LOGIN")?.as_text()?.to_owned(), password: password.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_takes_user_and_password_and_no_identity() {
        let read = plain(b"\0guest\0secret").expect("credentials");
        assert!(matches!(read, Credentials::Password { user, password } if user == "guest" && password == b"secret"));
        assert!(plain(b"admin\0guest\0secret").is_none());
        assert!(plain(b"guest").is_none());
    }

    #[test]
    fn amqplain_is_a_bare_table() {
        let response = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x02pw";
        let read = amqplain(response, Limits::default()).expect("credentials");
        assert!(matches!(read, Credentials::Password { user, password } if user == "guest" && password == b"pw"));
    }
}
