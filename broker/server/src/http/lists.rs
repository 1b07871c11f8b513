//! Lists of MQTT's connections, sessions and subscriptions, for users who may look.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portolan_core::broker::Broker;
use portolan_core::effect::Effects;
use portolan_core::exchange::QueueTarget;
use portolan_core::session::{NEVER, Session, SessionView, Subscription};
use portolan_mqtt::codec::Version;
use portolan_mqtt::topic;
use serde_json::{Value, json};

use super::page::Page;
use super::{Desk, Panel};
use crate::auth::Credentials;
use crate::mqtt::clients::{Clients, Online};
use crate::time::now_ms;

/// Users with one of these tags may read lists, as in RabbitMQ.
const TAGS: [&str; 2] = ["administrator", "monitoring"];

/// Everyone who is connected, by number of connection.
pub(super) async fn connections(
    State(panel): State<Arc<Panel>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    serve(&panel, peer, &headers, query, |desk, page| {
        let mut online = desk.clients.online();
        online.sort_unstable_by_key(|one| one.id.0);
        page.of(&online, connection)
    })
    .await
}

/// Every session, by vhost and client id.
pub(super) async fn sessions(
    State(panel): State<Arc<Panel>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    serve(&panel, peer, &headers, query, |desk, page| {
        page.of(&all_sessions(&desk.broker), |(vhost, one)| session(desk, vhost, &one.view()))
    })
    .await
}

/// Every subscription, by vhost, client id and filter.
pub(super) async fn subscriptions(
    State(panel): State<Arc<Panel>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    serve(&panel, peer, &headers, query, |desk, page| {
        let mut all: Vec<(Arc<str>, Arc<str>, String, Subscription)> = Vec::new();
        for (vhost, one) in all_sessions(&desk.broker) {
            let view = one.view();
            let own = view.subscriptions.iter().map(|(pattern, one)| (filter(pattern), *one));
            let shared = view.shared.iter().map(|(group, one)| (group.to_string(), *one));
            let mut filters: Vec<(String, Subscription)> = own.chain(shared).collect();
            filters.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let client = &one.client;
            all.extend(filters.into_iter().map(|(filter, one)| (Arc::clone(&vhost), Arc::clone(client), filter, one)));
        }
        page.of(&all, |(vhost, client, filter, one)| subscription(vhost, client, filter, *one))
    })
    .await
}

/// Lets those in who may look, and makes the list away from the thread that signals and alarms need.
async fn serve(
    panel: &Arc<Panel>,
    peer: SocketAddr,
    headers: &HeaderMap,
    query: Option<String>,
    list: impl FnOnce(&Desk, Page) -> Response + Send + 'static,
) -> Response {
    let Some(desk) = panel.desk.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting: the store is being opened\n").into_response();
    };
    if !may_look(desk, peer, headers).await {
        let realm = [(header::WWW_AUTHENTICATE, "Basic realm=\"Portolan\"")];
        let told = "log in as a user with the tag administrator or monitoring\n";
        return (StatusCode::UNAUTHORIZED, realm, told).into_response();
    }
    let page = match Page::parse(query.as_deref()) {
        Ok(page) => page,
        Err(told) => return (StatusCode::BAD_REQUEST, told).into_response(),
    };
    let panel = Arc::clone(panel);
    let made = tokio::task::spawn_blocking(move || panel.desk.get().map(|desk| list(desk, page))).await;
    made.ok().flatten().unwrap_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn may_look(desk: &Desk, peer: SocketAddr, headers: &HeaderMap) -> bool {
    let Some((user, password)) = credentials(headers) else { return false };
    let offered = Credentials { mechanism: "HTTP", user: &user, password: &password };
    let user = desk.authenticator.login(offered, peer).await;
    user.is_ok_and(|user| user.tags().iter().any(|tag| TAGS.contains(&tag.as_str())))
}

/// RFC 7617.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, text) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = STANDARD.decode(text.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

fn all_sessions(broker: &Broker) -> Vec<(Arc<str>, Arc<Session>)> {
    let mut all = Vec::new();
    for vhost in broker.all_vhosts() {
        all.extend(vhost.all_sessions().into_iter().map(|session| (Arc::clone(&vhost.name), session)));
    }
    all.sort_unstable_by(|(a, one), (b, other)| (a, &one.client).cmp(&(b, &other.client)));
    all
}

fn connection(online: &Online) -> Value {
    let opened = &online.opened;
    json!({
        "id": online.id.0,
        "client_id": &*opened.client,
        "user": &*opened.user,
        "vhost": &*opened.vhost,
        "peer_host": opened.peer.ip().to_canonical().to_string(),
        "peer_port": opened.peer.port(),
        "protocol": protocol(opened.version),
        "keep_alive": opened.keep_alive,
        "clean_start": opened.clean,
        "session_expiry": expiry(opened.expiry),
        "connected_at": online.since,
    })
}

fn session(desk: &Desk, vhost: &str, view: &SessionView) -> Value {
    let (ready, unsettled) = view.queue.and_then(|queue| depth(&desk.broker, queue)).unwrap_or_default();
    let online = view.connection.and_then(|id| desk.clients.find(id));
    json!({
        "client_id": &*view.client,
        "vhost": vhost,
        "connected": view.connection.is_some(),
        "connection": online.as_ref().map(connection),
        "session_expiry": expiry(view.expiry),
        "left_at": (view.left_at != 0).then_some(view.left_at),
        "subscriptions": view.subscriptions.len() + view.shared.len(),
        "messages_ready": ready,
        "messages_unacknowledged": unsettled,
        "qos2_received": view.received,
        "last_disconnect": parting(&desk.clients, &view.client),
    })
}

fn subscription(vhost: &str, client: &str, filter: &str, one: Subscription) -> Value {
    json!({
        "client_id": client,
        "vhost": vhost,
        "topic": filter,
        "qos": one.qos,
        "no_local": one.no_local,
        "retain_as_published": one.retain_as_published,
        "subscription_identifier": (one.identifier != 0).then_some(one.identifier),
    })
}

fn depth(broker: &Broker, queue: QueueTarget) -> Option<(usize, usize)> {
    broker.in_queue(queue, now_ms(), &mut Effects::default(), |queue, _| (queue.ready(), queue.unsettled()))
}

fn parting(clients: &Clients, client: &str) -> Option<Value> {
    let parting = clients.parting(client)?;
    Some(json!({ "reason": &*parting.reason, "at": parting.at }))
}

/// As RabbitMQ's management API has it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::V31 => "MQTT 3-1-0",
        Version::V311 => "MQTT 3-1-1",
        Version::V5 => "MQTT 5-0",
    }
}

/// Seconds; null stands for ever.
fn expiry(seconds: u32) -> Option<u32> {
    (seconds != NEVER).then_some(seconds)
}

/// The filter of a pattern: what makes the one of the other makes it again.
fn filter(pattern: &[u8]) -> String {
    let mut filter = Vec::with_capacity(pattern.len());
    topic::append_key(&String::from_utf8_lossy(pattern), &mut filter);
    String::from_utf8_lossy(&filter).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_lead_back_to_filters() {
        for text in ["a/+/b/#", "a.b/*/+", "$SYS/#", "/", "ü"] {
            let mut pattern = Vec::new();
            topic::append_key(text, &mut pattern);
            assert_eq!(filter(&pattern), text);
        }
    }

    #[test]
    fn basic_credentials_are_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            credentials(&headers)
        };
        let encoded = STANDARD.encode("user:pass:word");
        assert_eq!(read(&format!("Basic {encoded}")), Some(("user".to_owned(), b"pass:word".to_vec())));
        assert_eq!(read(&format!("basic {encoded}")), Some(("user".to_owned(), b"pass:word".to_vec())));
        for bad in ["Basic", "Bearer x", "Basic !", &format!("Basic {}", STANDARD.encode("nobody"))] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(credentials(&HeaderMap::new()), None);
    }
}
