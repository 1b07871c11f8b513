//! Logging in, from the configuration's text to the answers of [`Access`].

use portolan_core::access::Access;

use super::*;

const LOCAL: &str = "127.0.0.1:4711";
const REMOTE: &str = "192.0.2.1:4711";

fn authenticator(users: &str) -> Authenticator {
    let sources = config::Sources { settings: vec![format!("users={users}")], ..config::Sources::default() };
    Authenticator::new(&config::load(&sources).unwrap().config, Arc::default()).unwrap()
}

fn defaults() -> Authenticator {
    authenticator("[]")
}

/// Logs in as of `peer`; a refusal's wait takes no time here.
async fn login(auth: &Authenticator, user: &str, password: &str, peer: &str) -> Result<Arc<UserRecord>, LoginRefused> {
    let credentials = Credentials { mechanism: "PLAIN", user, password: password.as_bytes() };
    auth.login(credentials, peer.parse().unwrap()).await
}

#[track_caller]
fn refused(result: Result<Arc<UserRecord>, LoginRefused>) -> LoginRefused {
    match result {
        Ok(user) => panic!("{} was let in", user.name()),
        Err(refused) => refused,
    }
}

#[tokio::test]
async fn guest_is_let_in_from_this_machine_only() {
    let auth = defaults();
    let guest = login(&auth, "guest", "guest", LOCAL).await.unwrap();
    assert_eq!((&**guest.name(), guest.tags()), ("guest", ["administrator".to_owned()].as_slice()));
    for local in ["127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(login(&auth, "guest", "guest", local).await.is_ok(), "{local}");
    }
    assert_eq!(refused(login(&auth, "guest", "guest", REMOTE).await), LoginRefused::NotLoopback);
    assert_eq!(refused(login(&auth, "guest", "guest", "[::ffff:192.0.2.1]:1").await), LoginRefused::NotLoopback);
}

#[tokio::test]
async fn wrong_names_and_passwords_are_refused_and_counted() {
    let auth = defaults();
    assert_eq!(refused(login(&auth, "nobody", "guest", LOCAL).await), LoginRefused::UnknownUser);
    assert_eq!(refused(login(&auth, "guest", "", LOCAL).await), LoginRefused::WrongPassword);
    login(&auth, "guest", "guest", LOCAL).await.unwrap();
    // Also once the right one is known, and a second time.
    assert_eq!(refused(login(&auth, "guest", "Guest", LOCAL).await), LoginRefused::WrongPassword);
    assert_eq!(refused(login(&auth, "guest", "Guest", LOCAL).await), LoginRefused::WrongPassword);
    let objects = &auth.counters.objects;
    assert_eq!((objects.logins_succeeded.get(), objects.logins_failed.get()), (1, 4));
}

#[tokio::test]
async fn hashes_of_either_kind_are_accepted() {
    let argon2 = hash_password(b"secret").unwrap();
    let auth = authenticator(&format!(
        r#"[{{ name = "ours", password_hash = "{argon2}" }},
            {{ name = "rabbits", password_hash = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR" }},
            {{ name = "plain", password = "123" }}]"#
    ));
    for (user, password) in [("ours", "secret"), ("rabbits", "test12"), ("plain", "123")] {
        assert!(login(&auth, user, password, REMOTE).await.is_ok(), "{user}");
        assert_eq!(refused(login(&auth, user, "other", REMOTE).await), LoginRefused::WrongPassword);
    }
}

#[tokio::test]
async fn many_at_once_share_one_verification() {
    let auth = Arc::new(defaults());
    let logins: Vec<_> = (0..2_000)
        .map(|port: u16| {
            let auth = auth.clone();
            tokio::spawn(async move { login(&auth, "guest", "guest", &format!("127.0.0.1:{port}")).await.is_ok() })
        })
        .collect();
    for login in logins {
        assert!(login.await.unwrap());
    }
    assert_eq!(auth.counters.objects.passwords_verified.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_wait_longer_and_longer() {
    let auth = authenticator("[]");
    let mut waits = Vec::new();
    for _ in 0..14 {
        let before = tokio::time::Instant::now();
        refused(login(&auth, "nobody", "x", REMOTE).await);
        waits.push(before.elapsed().as_secs_f64());
    }
    assert!(waits[0] <= 0.3 && waits[3] > waits[0] && waits[13] > 2.5 && waits[13] <= 3.1, "{waits:?}");
}

async fn access(users: &str, vhost: &str) -> Option<Arc<dyn Access>> {
    login(&authenticator(users), "a", "b", REMOTE).await.unwrap().access(vhost, None)
}

#[tokio::test]
async fn permissions_are_by_vhost_and_pattern() {
    let row = r#"[{ name = "a", password = "b", permissions =
        [{ vhost = "/", configure = "^a-", write = "^(a-.*|amq\\.default)$", read = "" }] }]"#;
    let access = access(row, "/").await.unwrap();
    assert_eq!(access.user(), "a");
    assert!(access.configure("a-1") && !access.configure("b-a-1"));
    assert!(access.write("a-1") && access.write("amq.default") && !access.write("amq.topic"));
    assert!(!access.read("a-1") && !access.read(""));
    assert!(!access.unrestricted() && !access.impersonator());
    // No row, no way in.
    assert!(self::access(row, "other").await.is_none());
}

#[tokio::test]
async fn topic_permissions_narrow_one_exchange() {
    let access = access(
        r#"[{ name = "a", password = "b", tags = ["impersonator"],
              permissions = [{ vhost = "/", configure = ".*", write = ".*", read = ".*" }],
              topic_permissions = [{ vhost = "/", exchange = "amq.topic", write = "^{username}\\.", read = "" }] }]"#,
        "/",
    )
    .await
    .unwrap();
    assert!(access.write_topic("amq.topic", b"a.temperature") && !access.write_topic("amq.topic", b"b.temperature"));
    assert!(!access.read_topic("amq.topic", b"a.#"));
    assert!(access.write_topic("other", b"b.\xff") && access.read_topic("other", b"#"));
    assert!(!access.unrestricted() && access.impersonator());
}

#[tokio::test]
async fn all_rights_need_no_asking() {
    let access = login(&defaults(), "guest", "guest", LOCAL).await.unwrap().access("/", None).unwrap();
    assert!(access.unrestricted());
}

fn configured(settings: &[&str]) -> Authenticator {
    let settings = settings.iter().map(|text| (*text).to_owned()).collect();
    let sources = config::Sources { settings, ..config::Sources::default() };
    Authenticator::new(&config::load(&sources).unwrap().config, Arc::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn anonymous_clients_are_let_in_as_configured() {
    for (anonymous, local, remote) in [("never", false, false), ("loopback", true, false), ("always", true, true)] {
        let auth = configured(&[&format!("mqtt.anonymous={anonymous}")]);
        let found = (
            auth.login_anonymous(LOCAL.parse().unwrap()).await.is_ok(),
            auth.login_anonymous(REMOTE.parse().unwrap()).await.is_ok(),
        );
        assert_eq!(found, (local, remote), "{anonymous}");
    }
    let auth = configured(&["auth.guest=false"]);
    assert_eq!(refused(auth.login_anonymous(LOCAL.parse().unwrap()).await), LoginRefused::NotAnonymous);
    let auth = configured(&[r#"users=[{ name = "device", password = "x" }]"#, "mqtt.anonymous_user=device"]);
    assert_eq!(&**auth.login_anonymous(LOCAL.parse().unwrap()).await.unwrap().name(), "device");
}

#[tokio::test(start_paused = true)]
async fn who_has_proven_itself_is_let_in_where_it_may() {
    let auth = defaults();
    assert!(auth.login_proven("guest", LOCAL.parse().unwrap()).await.is_ok());
    assert_eq!(refused(auth.login_proven("guest", REMOTE.parse().unwrap()).await), LoginRefused::NotLoopback);
    assert_eq!(refused(auth.login_proven("nobody", LOCAL.parse().unwrap()).await), LoginRefused::UnknownUser);
}

#[test]
fn the_directory_tells_nobody_who_exists() {
    let (text, hash) = (scram_password(b"pencil").unwrap(), hash_password(b"pencil").unwrap());
    let users = format!(
        r#"[{{ name = "a", password_hash = "{hash}", scram_sha_256 = "{text}" }},
            {{ name = "b", password = "pencil" }}, {{ name = "c", password_hash = "{hash}" }}]"#
    );
    let (auth, again) = (authenticator(&users), authenticator(&users));
    assert_eq!(auth.scram("a").stored, parse_scram(&text).unwrap().stored);
    for user in ["b", "c", "nobody"] {
        let (one, two) = (auth.scram(user), again.scram(user));
        assert_eq!(
            (one.salt.len(), one.iterations, &one.salt, one.stored),
            (16, 4096, &two.salt, two.stored),
            "{user}"
        );
    }
}

#[tokio::test]
async fn a_clients_id_is_filled_into_topic_permissions() {
    let auth = authenticator(
        r#"[{ name = "a", password = "b", permissions = [{ vhost = "/", write = ".*", read = ".*" }],
              topic_permissions = [{ vhost = "/", exchange = "amq.topic", write = "^{client_id}\\.", read = ".*" }] }]"#,
    );
    let user = login(&auth, "a", "b", REMOTE).await.unwrap();
    let access = user.access("/", Some(Client { id: "dev.1", anonymous: false })).unwrap();
    assert!(access.write_topic("amq.topic", b"dev.1.temp") && !access.write_topic("amq.topic", b"devx1.temp"));
    assert!(access.read_topic("amq.topic", b"#") && !access.checks_deliveries() && !access.unrestricted());
    // Without an id, the rights that depend on it are none.
    assert!(!user.access("/", None).unwrap().write_topic("amq.topic", b".temp"));
}

#[tokio::test]
async fn an_acl_file_holds_for_clients_with_ids_and_can_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acl");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("topic read open/#\nuser guest\ntopic plant/#\npattern %u/%c/#\n");
    let auth = configured(&[&format!("mqtt.acl_file={}", file.display())]);
    let user = login(&auth, "guest", "guest", LOCAL).await.unwrap();
    let client = |anonymous| user.access("/", Some(Client { id: "c", anonymous })).unwrap();
    let (named, anonymous) = (client(false), client(true));
    assert!(named.checks_deliveries() && !named.unrestricted() && named.read_topic("amq.topic", b"#"));
    assert!(named.write_topic("amq.topic", b"plant.7") && named.receive_topic("amq.topic", b"guest.c.x"));
    assert!(!named.receive_topic("amq.topic", b"open.x") && !named.write_topic("amq.topic", b"guest.d.x"));
    assert!(anonymous.receive_topic("amq.topic", b"open.x") && !anonymous.write_topic("amq.topic", b"open.x"));
    // AMQP has permissions of its own.
    assert!(user.access("/", None).unwrap().unrestricted());
    write("nonsense\n");
    auth.reload_acl();
    assert!(named.write_topic("amq.topic", b"plant.7"));
    write("user guest\ntopic read #\n");
    auth.reload_acl();
    assert!(!named.write_topic("amq.topic", b"plant.7") && named.receive_topic("amq.topic", b"open.x"));
}
