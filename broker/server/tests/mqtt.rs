//! MQTT clients at the built command: who is let in, what operators see, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not expect should fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(30);

struct Broker {
    child: Child,
    mqtt: Vec<SocketAddr>,
    http: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Broker {
    fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let listeners = ["listeners.amqp=[]", "listeners.mqtt=127.0.0.1:0", "listeners.http=127.0.0.1:0"];
        for setting in listeners.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses = |key: &str| -> Vec<SocketAddr> {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap();
            found.split(',').map(|address| address.parse().unwrap()).collect()
        };
        Self { mqtt: addresses("mqtt="), http: addresses("http=")[0], child, _folder: folder }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.mqtt[0]).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(stream)
    }

    /// Status code and body; the user, if any, in RFC 7617's encoding.
    fn get(&self, path: &str, user: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let login = user.map(|user| format!("Authorization: Basic {user}\r\n")).unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (answer[9..12].parse().unwrap(), body)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(TcpStream);

impl Client {
    fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).unwrap();
    }

    /// The next packet: its first byte and what follows the length, which is below 128 here.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert!(head[1] < 128, "a longer packet than these tests expect");
        let mut rest = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut rest).unwrap();
        (head[0], rest)
    }

    /// MQTT 5 with a clean start; the reason code of the answer.
    fn connect5(&mut self, client: &str, user: Option<(&str, &str)>) -> u8 {
        let text = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let flags = if user.is_some() { 0xc2 } else { 0x02 };
        let mut body = [&text("MQTT")[..], &[5, flags, 0, 0, 0], &text(client)].concat();
        for text in user.map(|(user, password)| [text(user), text(password)]).into_iter().flatten() {
            body.extend(text);
        }
        self.send(&[&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat());
        let (kind, answer) = self.receive();
        assert_eq!(kind, 0x20);
        answer[1]
    }

    /// One filter at QoS 0; the reason code of the answer.
    fn subscribe(&mut self, filter: &str) -> u8 {
        let size = u8::try_from(filter.len()).unwrap();
        let body = [&[0, 1, 0, 0, size], filter.as_bytes(), &[0]].concat();
        self.send(&[&[0x82, size + 6], &body[..]].concat());
        let (kind, answer) = self.receive();
        assert_eq!(kind, 0x90);
        *answer.last().unwrap()
    }

    /// The next message's topic and payload.
    fn message(&mut self) -> (String, String) {
        let (kind, body) = self.receive();
        assert_eq!(kind & 0xf6, 0x30, "a publish of QoS 0");
        let size = usize::from(body[1]);
        let (topic, rest) = body[2..].split_at(size);
        assert_eq!(rest[0], 0, "no properties");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(topic), text(&rest[1..]))
    }
}

/// `guest:guest`
const GUEST: &str = "Z3Vlc3Q6Z3Vlc3Q=";

#[test]
fn clients_are_listed_to_those_who_may_look() {
    let broker = Broker::start(&[r#"users=[{ name = "plain", password = "guest" }]"#]);
    let mut client = broker.connect();
    assert_eq!(client.connect5("dev-1", Some(("guest", "guest"))), 0);
    assert_eq!(client.subscribe("a.b/+/#"), 0);
    for path in ["/api/mqtt/connections", "/api/mqtt/sessions", "/api/mqtt/subscriptions"] {
        // `plain` has the password, and no tag.
        for user in [None, Some("Z3Vlc3Q6eA=="), Some("cGxhaW46Z3Vlc3Q=")] {
            assert_eq!(broker.get(path, user).0, 401, "{path} {user:?}");
        }
        let (code, body) = broker.get(path, Some(GUEST));
        assert!(code == 200 && body.contains(r#""client_id":"dev-1""#), "{path}: {code} {body}");
    }
    let (_, connections) = broker.get("/api/mqtt/connections", Some(GUEST));
    assert!(connections.contains(r#""protocol":"MQTT 5-0""#) && connections.contains(r#""user":"guest""#));
    let (_, subscriptions) = broker.get("/api/mqtt/subscriptions?page=1&page_size=10", Some(GUEST));
    assert!(subscriptions.contains(r#""topic":"a.b/+/#""#) && subscriptions.contains(r#""total_count":1"#));
    assert_eq!(broker.get("/api/mqtt/sessions?page=no", Some(GUEST)).0, 400);
    let (_, metrics) = broker.get("/metrics", None);
    for line in ["portolan_mqtt_connections 1", "portolan_mqtt_sessions 1", "portolan_mqtt_subscriptions 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
    }
}

#[test]
fn sys_topics_are_retained_and_told_anew() {
    let broker = Broker::start(&["mqtt.sys_interval=1s"]);
    let mut client = broker.connect();
    assert_eq!((client.connect5("dash", None), client.subscribe("$SYS/broker/clients/connected")), (0, 0));
    // Whatever was true when it came; it is told when it has changed.
    while client.message() != ("$SYS/broker/clients/connected".to_owned(), "1".to_owned()) {}
    let mut late = broker.connect();
    assert_eq!((late.connect5("late", None), late.subscribe("$SYS/broker/version")), (0, 0));
    let (topic, version) = late.message();
    assert_eq!(topic, "$SYS/broker/version");
    assert!(version.starts_with("portolan version "), "{version}");
    while client.message().1 != "2" {}
}

#[test]
fn anonymous_clients_need_leave() {
    let broker = Broker::start(&["mqtt.anonymous=never"]);
    // Not authorized; with a name it would be bad user name or password.
    assert_eq!(broker.connect().connect5("a", None), 0x87);
    assert_eq!(broker.connect().connect5("a", Some(("guest", "guest"))), 0);
    assert_eq!(broker.connect().connect5("a", Some(("guest", "x"))), 0x86);
}

#[test]
fn an_acl_file_holds_until_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acl");
    std::fs::write(&file, "topic write in\ntopic read out\n").unwrap();
    let broker = Broker::start(&[&format!("mqtt.acl_file={}", file.display())]);
    let (mut one, mut two) = (broker.connect(), broker.connect());
    assert_eq!((one.connect5("one", None), one.subscribe("#")), (0, 0));
    assert_eq!(two.connect5("two", None), 0);
    // Neither may be read: the one because of the file, the other because it may not even be written.
    two.send(b"\x30\x06\x00\x02in\x001");
    two.send(b"\x30\x07\x00\x03out\x002");
    // Each answer says that what came before it was done.
    two.send(b"\xc0\x00");
    assert_eq!(two.receive().0, 0xd0);
    std::fs::write(&file, "topic readwrite #\n").unwrap();
    broker.signal(Signal::HUP);
    // Until it is read, what is published is dropped.
    one.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let started = std::time::Instant::now();
    while one.0.peek(&mut [0]).is_err() {
        assert!(started.elapsed() < DEADLINE, "the file was not read again");
        two.send(b"\x30\x07\x00\x03out\x003");
    }
    one.0.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(one.message(), ("out".to_owned(), "3".to_owned()));
}

#[test]
fn a_stop_says_goodbye() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    assert_eq!(client.connect5("a", None), 0);
    broker.signal(Signal::TERM);
    let (kind, body) = client.receive();
    assert_eq!((kind, body.first()), (0xe0, Some(&0x8b)), "server shutting down");
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    assert_eq!(broker.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_can_have_a_vhost_of_its_own() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broker = Broker::start(&[
        r#"vhosts=[{ name = "/" }, { name = "factory" }]"#,
        &format!("listeners.mqtt=127.0.0.1:0,127.0.0.1:{port}"),
        &format!("mqtt.vhosts.{port}=factory"),
    ]);
    let mut client = broker.connect();
    assert_eq!(client.connect5("office", None), 0);
    let mut other = Client(TcpStream::connect(broker.mqtt[1]).unwrap());
    assert_eq!(other.connect5("hall", None), 0);
    let (_, body) = broker.get("/api/mqtt/connections", Some(GUEST));
    let rows: Vec<&str> = body.split("},{").collect();
    let vhost = |client: &str| rows.iter().any(|row| row.contains(client) && row.contains(r#""vhost":"factory""#));
    assert!(vhost("hall") && !vhost("office"), "{body}");
}
