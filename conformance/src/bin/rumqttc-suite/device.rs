//! One client of either version, its network loop in a task of its own, its deliveries in a channel.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use portolan_conformance::{DEADLINE, Outcome, fresh, same};
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, PublishProperties};
use rumqttc::{mqttbytes, v5};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

/// Large enough for every check.
const MAX_PACKET: usize = 16 << 20;

/// The version a check is run at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Version {
    /// 3.1.1.
    V311,
    /// 5.0.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// How a client connects.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Topic and payload; published at QoS 2.
    pub(crate) will: Option<(String, String)>,
    pub(crate) login: Option<(String, String)>,
    pub(crate) receive_maximum: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { client_id: fresh("c"), clean: true, will: None, login: None, receive_maximum: None }
    }
}

/// What a client has received.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Option<PublishProperties>,
}

/// What the network loop tells besides deliveries.
enum Told {
    Connected(bool),
    Granted,
    Gone,
    Settled,
}

enum Client {
    Old(rumqttc::AsyncClient),
    Five(v5::AsyncClient),
}

/// A connected client.
pub(crate) struct Device {
    client: Client,
    messages: mpsc::UnboundedReceiver<Got>,
    told: Mutex<mpsc::UnboundedReceiver<Told>>,
    acks: Mutex<u64>,
    settled: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Error>,
    /// Whether the server had kept the session.
    pub(crate) present: bool,
}

/// Where the network loop brings what happens.
#[derive(Clone)]
struct Ears {
    messages: mpsc::UnboundedSender<Got>,
    told: mpsc::UnboundedSender<Told>,
    settled: Arc<watch::Sender<u64>>,
}

impl Ears {
    fn tell(&self, told: Told) {
        if matches!(told, Told::Settled) {
            self.settled.send_modify(|count| *count += 1);
        } else {
            // Nobody listens any more when the check is over.
            let _ = self.told.send(told);
        }
    }
}

async fn run_old(mut events: rumqttc::EventLoop, ears: Ears) -> anyhow::Error {
    use rumqttc::{Event, Packet};
    loop {
        let told = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Told::Connected(ack.session_present),
            Ok(Event::Incoming(Packet::SubAck(_))) => Told::Granted,
            Ok(Event::Incoming(Packet::UnsubAck(_))) => Told::Gone,
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => Told::Settled,
            Ok(Event::Incoming(Packet::Publish(one))) => {
                let (topic, qos) = (one.topic, one.qos as u8);
                let _ =
                    ears.messages.send(Got { topic, payload: one.payload, qos, retain: one.retain, properties: None });
                continue;
            }
            Ok(_) => continue,
            Err(why) => return anyhow!("{why:?}"),
        };
        ears.tell(told);
    }
}

async fn run_five(mut events: v5::EventLoop, ears: Ears) -> anyhow::Error {
    use v5::Event;
    use v5::mqttbytes::v5::Packet;
    loop {
        let told = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Told::Connected(ack.session_present),
            Ok(Event::Incoming(Packet::SubAck(_))) => Told::Granted,
            Ok(Event::Incoming(Packet::UnsubAck(_))) => Told::Gone,
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => Told::Settled,
            Ok(Event::Incoming(Packet::Publish(one))) => {
                let topic = String::from_utf8_lossy(&one.topic).into_owned();
                let qos = one.qos as u8;
                let got = Got { topic, payload: one.payload, qos, retain: one.retain, properties: one.properties };
                let _ = ears.messages.send(got);
                continue;
            }
            Ok(_) => continue,
            Err(why) => return anyhow!("{why:?}"),
        };
        ears.tell(told);
    }
}

fn address() -> anyhow::Result<(String, u16)> {
    let host = env::var("BROKER_HOST").unwrap_or_else(|_| "127.0.0.1".into());
    Ok((host, env::var("BROKER_MQTT").context("BROKER_MQTT names no port")?.parse()?))
}

fn start_old(options: Options, ears: Ears) -> anyhow::Result<(Client, JoinHandle<anyhow::Error>)> {
    let (host, port) = address()?;
    let mut settings = rumqttc::MqttOptions::new(options.client_id, host, port);
    settings.set_clean_session(options.clean).set_max_packet_size(MAX_PACKET, MAX_PACKET);
    settings.set_keep_alive(Duration::from_secs(60));
    if let Some((topic, payload)) = options.will {
        settings.set_last_will(rumqttc::LastWill::new(topic, payload, mqttbytes::QoS::ExactlyOnce, false));
    }
    if let Some((user, password)) = options.login {
        settings.set_credentials(user, password);
    }
    let (client, events) = rumqttc::AsyncClient::new(settings, 100);
    Ok((Client::Old(client), tokio::spawn(run_old(events, ears))))
}

fn start_five(options: Options, ears: Ears) -> anyhow::Result<(Client, JoinHandle<anyhow::Error>)> {
    let (host, port) = address()?;
    let mut settings = v5::MqttOptions::new(options.client_id, host, port);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(if options.clean { 0 } else { 600 });
    properties.receive_maximum = options.receive_maximum;
    properties.max_packet_size = u32::try_from(MAX_PACKET).ok();
    settings.set_clean_start(options.clean).set_connect_properties(properties);
    settings.set_keep_alive(Duration::from_secs(60));
    if let Some((topic, payload)) = options.will {
        let qos = v5::mqttbytes::QoS::ExactlyOnce;
        settings.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, payload, qos, false, None));
    }
    if let Some((user, password)) = options.login {
        settings.set_credentials(user, password);
    }
    let (client, events) = v5::AsyncClient::new(settings, 100);
    Ok((Client::Five(client), tokio::spawn(run_five(events, ears))))
}

impl Device {
    /// Connects and waits for CONNACK.
    pub(crate) async fn connect(version: Version, options: Options) -> anyhow::Result<Self> {
        let (messages, inbox) = mpsc::unbounded_channel();
        let (told, news) = mpsc::unbounded_channel();
        let (settled, count) = watch::channel(0);
        let ears = Ears { messages, told, settled: Arc::new(settled) };
        let (client, task) = match version {
            Version::V311 => start_old(options, ears)?,
            Version::V5 => start_five(options, ears)?,
        };
        let (told, acks) = (Mutex::new(news), Mutex::new(0));
        let mut device = Self { client, messages: inbox, told, acks, settled: count, task, present: false };
        let first = time::timeout(DEADLINE, device.told.get_mut().recv()).await?;
        match first {
            Some(Told::Connected(present)) => device.present = present,
            _ => bail!("{}", (&mut device.task).await?),
        }
        Ok(device)
    }

    /// The client of 5.0 itself.
    pub(crate) fn five(&self) -> anyhow::Result<&v5::AsyncClient> {
        match &self.client {
            Client::Five(client) => Ok(client),
            Client::Old(_) => bail!("not a client of 5.0"),
        }
    }

    /// Queues a message; `settled` waits for its handshake.
    pub(crate) async fn publish(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Outcome {
        match &self.client {
            Client::Old(client) => client.publish(topic, mqttbytes::qos(qos)?, retain, payload).await?,
            Client::Five(client) => {
                let qos = v5::mqttbytes::qos(qos).context("a QoS")?;
                client.publish(topic, qos, retain, Bytes::copy_from_slice(payload)).await?;
            }
        }
        *self.acks.lock().await += u64::from(qos > 0);
        Ok(())
    }

    /// Waits until the server has acknowledged all that was published.
    pub(crate) async fn settled(&self) -> Outcome {
        let wanted = *self.acks.lock().await;
        let mut count = self.settled.clone();
        time::timeout(DEADLINE, count.wait_for(|done| *done >= wanted)).await.context("acknowledgements")??;
        Ok(())
    }

    /// Subscribes and waits for SUBACK.
    pub(crate) async fn subscribe(&self, topic: &str, qos: u8) -> Outcome {
        match &self.client {
            Client::Old(client) => client.subscribe(topic, mqttbytes::qos(qos)?).await?,
            Client::Five(client) => client.subscribe(topic, v5::mqttbytes::qos(qos).context("a QoS")?).await?,
        }
        self.granted().await
    }

    /// Waits for the SUBACK.
    pub(crate) async fn granted(&self) -> Outcome {
        match time::timeout(DEADLINE, self.told.lock().await.recv()).await.context("SUBACK")? {
            Some(Told::Granted) => Ok(()),
            _ => bail!("no SUBACK"),
        }
    }

    /// Unsubscribes and waits for UNSUBACK.
    pub(crate) async fn unsubscribe(&self, topic: &str) -> Outcome {
        match &self.client {
            Client::Old(client) => client.unsubscribe(topic).await?,
            Client::Five(client) => client.unsubscribe(topic).await?,
        }
        match time::timeout(DEADLINE, self.told.lock().await.recv()).await.context("UNSUBACK")? {
            Some(Told::Gone) => Ok(()),
            _ => bail!("no UNSUBACK"),
        }
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Got> {
        time::timeout(DEADLINE, self.messages.recv()).await.context("a delivery")?.context("the connection ended")
    }

    /// The payload of the next delivery as text.
    pub(crate) async fn text(&mut self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.next().await?.payload.to_vec())?)
    }

    /// Nothing more comes: a message to itself is the next.
    pub(crate) async fn nothing(&mut self) -> Outcome {
        let mark = fresh("mark");
        self.subscribe(&mark, 1).await?;
        self.publish(&mark, b"", 1, false).await?;
        same(self.next().await?.topic, mark)
    }

    /// Waits until the server has ended the connection.
    pub(crate) async fn ended(&mut self) -> Outcome {
        time::timeout(DEADLINE, &mut self.task).await.context("the end")??;
        Ok(())
    }

    /// The process dies: no DISCONNECT.
    pub(crate) fn crash(self) {
        self.task.abort();
    }

    /// DISCONNECT.
    pub(crate) async fn leave(mut self) -> Outcome {
        match &self.client {
            Client::Old(client) => client.disconnect().await?,
            Client::Five(client) => client.disconnect().await?,
        }
        // The loop ends when the server has closed, or when it sees that we have.
        let _ = time::timeout(Duration::from_secs(2), &mut self.task).await;
        self.task.abort();
        Ok(())
    }
}
