//! The endpoints, asked through a socket.

use portolan_core::alarms::Shortage;
use portolan_core::store::Space;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::bind;
use crate::config::Addresses;
use crate::status::Gauges;

struct Fixed;

impl Status for Fixed {
    fn gauges(&self) -> Gauges {
        Gauges {
            queues: 3,
            sessions: 4,
            messages_ready: 5,
            messages_unsettled: 2,
            journal_last: 10,
            journal_durable: 7,
            ..Gauges::default()
        }
    }

    fn space(&self) -> Space {
        Space::Plenty
    }
}

struct Site {
    panel: Arc<Panel>,
    address: std::net::SocketAddr,
}

fn site() -> Site {
    let config = Config::default();
    let marks = Marks { memory: 1 << 30, disk_free: 1 << 20, folder: ".".into() };
    let panel = Panel::new(&config, Arc::default(), Arc::default(), Arc::default(), marks);
    let panel = Arc::new(panel);
    let bound = bind::bind("http", &Addresses(vec!["127.0.0.1:0".parse().unwrap()])).unwrap();
    let address = bound[0].address();
    serve(bound, 16, &panel).unwrap();
    Site { panel, address }
}

impl Site {
    /// The status code and everything after it.
    async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "").await
    }

    /// With more lines in the request's head.
    async fn get_as(&self, path: &str, head: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer[12..].to_owned())
    }

    async fn check(&self, path: &str, code: u16, text: &str) {
        let (found, answer) = self.get(path).await;
        assert!(found == code && answer.contains(text), "{path}: {found} {answer}");
    }
}

#[tokio::test]
async fn readiness_follows_the_phases() {
    let site = site();
    site.check("/health/live", 200, "live").await;
    site.check("/health/ready", 503, "starting").await;
    site.panel.lifecycle.enter(Phase::Ready);
    site.check("/health/ready", 200, "ready\n").await;
    site.panel.alarms.set(Shortage { memory: true, disk: false });
    site.check("/health/ready", 200, "publishers are blocked: low on memory").await;
    site.panel.lifecycle.enter(Phase::Draining);
    site.check("/health/ready", 503, "draining").await;
    site.panel.lifecycle.fail("the disk is gone");
    site.check("/health/ready", 503, "failed: the disk is gone").await;
    site.check("/health/live", 503, "failed: the disk is gone").await;
    site.check("/nothing", 404, "").await;
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_expect() {
    let site = site();
    site.panel.counters.published.received.add(41);
    site.panel.counters.objects.logins_failed.add(1);
    site.panel.alarms.set(Shortage { memory: false, disk: true });
    // Counters are there before the store is open, gauges after.
    let (_, early) = site.get("/metrics").await;
    assert!(!early.contains("\nrabbitmq_queues "));
    site.panel.show(Arc::new(Fixed));
    let (code, answer) = site.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"));
    for line in [
        "rabbitmq_identity_info{rabbitmq_node=\"portolan\",rabbitmq_cluster=\"portolan\",rabbitmq_cluster_permanent_id=\"portolan\"} 1",
        "rabbitmq_global_messages_received_total{protocol=\"amqp091\"} 41",
        "rabbitmq_auth_attempts_failed_total{protocol=\"amqp091\"} 1",
        "rabbitmq_alarms_memory_used_watermark 0",
        "rabbitmq_alarms_free_disk_space_watermark 1",
        "rabbitmq_queues 3",
        "portolan_mqtt_messages_received_total{qos=\"2\"} 0",
        "portolan_mqtt_sessions 4",
        "rabbitmq_queue_messages_ready 5",
        "rabbitmq_queue_messages 7",
        "portolan_journal_durable_lag 3",
    ] {
        assert!(answer.lines().any(|l| l == line), "{line} is missing in {answer}");
    }
}

#[tokio::test]
async fn every_family_is_declared_once() {
    let site = site();
    site.panel.show(Arc::new(Fixed));
    let (_, answer) = site.get("/metrics").await;
    let mut families: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    let declared = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!((families.len(), declared > 50), (declared, true));
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    for sample in body.lines().filter(|l| !l.starts_with('#')) {
        let value = sample.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{sample}");
    }
}

#[tokio::test]
async fn oversize_requests_are_refused() {
    let site = site();
    let (code, _) = site.get(&format!("/{}", "x".repeat(HEAD_BYTES))).await;
    assert!((400..500).contains(&code), "{code}");
}
