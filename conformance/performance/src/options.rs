//! What can be asked of the load generator on its command line.

use std::net::SocketAddr;

use clap::Args;

use crate::ledger::Layout;
use crate::meter::Broker;
use crate::mqtt::packet::Level;
use crate::stamp::STAMP;
use crate::wire::{FRAME_MAX, FRAME_OVERHEAD};

const SIZES: std::ops::RangeInclusive<i64> = STAMP as i64..=(FRAME_MAX as usize - FRAME_OVERHEAD) as i64;

fn body_size(text: &str) -> Result<usize, String> {
    let size: i64 = text.parse().map_err(|_| "not a number".to_string())?;
    if SIZES.contains(&size) { Ok(size as usize) } else { Err(format!("{} to {} octets", SIZES.start(), SIZES.end())) }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proto {
    /// AMQP 0-9-1
    #[default]
    Amqp,
    /// MQTT 3.1.1
    Mqtt,
    /// MQTT 5.0
    Mqtt5,
}

/// Which broker, and what to call it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The broker's address
    #[arg(long, default_value = "127.0.0.1:5672")]
    pub(crate) addr: SocketAddr,
    /// What to speak
    #[arg(long, value_enum, default_value_t)]
    pub(crate) proto: Proto,
    /// User name; AMQP: guest if there is none, MQTT: none
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Password, likewise
    #[arg(long)]
    pub(crate) password: Option<String>,
    /// Virtual host
    #[arg(long, default_value = "/")]
    pub(crate) vhost: String,
    /// Processes of the broker, whose processor time and memory are reported; their children are followed
    #[arg(long, value_delimiter = ',')]
    pub(crate) broker_pid: Vec<u32>,
    /// A label for the report: the broker's name
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// A label for the report: the scenario's name
    #[arg(long, default_value = "")]
    pub(crate) scenario: String,
    /// Names the run's queues and marks its messages; 0: chosen at random
    #[arg(long, default_value_t = 0)]
    pub(crate) run: u64,
}

impl Target {
    /// The broker's processes.
    pub(crate) fn broker(&self) -> Broker {
        Broker::new(&self.broker_pid)
    }

    /// The level of MQTT that is spoken; `None` if it is AMQP.
    pub(crate) fn mqtt(&self) -> Option<Level> {
        match self.proto {
            Proto::Amqp => None,
            Proto::Mqtt => Some(Level::V4),
            Proto::Mqtt5 => Some(Level::V5),
        }
    }

    /// With a number for the run, if none was given.
    pub(crate) fn numbered(mut self) -> Self {
        if self.run == 0 {
            let x = crate::clock::nanos() ^ (u64::from(std::process::id()) << 32);
            self.run = (x.wrapping_mul(0x9E6C_63D0_876A_3F6B) >> 40) + 1;
        }
        self
    }

    /// The run's exchange.
    pub(crate) fn exchange(&self) -> String {
        format!("load-{:06x}", self.run)
    }

    /// The run's queue number `index`.
    pub(crate) fn queue(&self, index: usize) -> String {
        format!("load-{:06x}-{index}", self.run)
    }
}

/// What to publish, and how it is consumed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Publishing connections
    #[arg(long, default_value_t = 1)]
    pub(crate) producers: usize,
    /// Queues; MQTT: topics
    #[arg(long, default_value_t = 1)]
    pub(crate) queues: usize,
    /// Consuming connections; at least one to a queue. MQTT: topics are dealt out to them, or they to the topics
    #[arg(long, default_value_t = 1)]
    pub(crate) consumers: usize,
    /// Octets of a body
    #[arg(long, default_value = "16", value_parser = body_size)]
    pub(crate) size: usize,
    /// Publish with delivery mode 2
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Durable queues; MQTT: the consumers' sessions outlive their connections
    #[arg(long)]
    pub(crate) durable: bool,
    /// Ask for confirms, with at most this many outstanding per producer; 0: do not ask
    #[arg(long, default_value_t = 0)]
    pub(crate) confirm: usize,
    /// Deliveries that a consumer may hold; 0: any number
    #[arg(long, default_value_t = 0)]
    pub(crate) prefetch: u16,
    /// Acknowledge every N-th delivery, with all before it
    #[arg(long, default_value_t = 1)]
    pub(crate) ack_every: u64,
    /// Consume without acknowledging
    #[arg(long)]
    pub(crate) auto_ack: bool,
    /// Publish to a fan-out exchange that all queues are bound to
    #[arg(long)]
    pub(crate) fanout: bool,
    /// MQTT: quality of service, of publishing and of subscribing
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// MQTT, QoS 1 and 2: at most this many messages unacknowledged per producer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) inflight: u16,
    /// MQTT: each consumer subscribes to all topics by one filter
    #[arg(long)]
    pub(crate) wildcard: bool,
    /// MQTT: half of the filters match their topic by a wildcard
    #[arg(long)]
    pub(crate) mixed: bool,
    /// MQTT: seconds of keep-alive
    #[arg(long = "keepalive", default_value_t = 600)]
    pub(crate) keep_alive: u16,
    /// MQTT: the messages are retained ones
    #[arg(skip)]
    pub(crate) retain: bool,
    /// Hold back while this many messages are published and not received; 0: never
    #[arg(long, default_value_t = 0)]
    pub(crate) window: u64,
    /// Messages per second by schedule, latency counted from when each was due; 0: as fast as may be
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// How long to publish, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds at the start that no figure counts
    #[arg(long, default_value_t = 0.0)]
    pub(crate) warmup: f64,
    /// Stop after this many messages, whatever the time; 0: go by the time
    #[arg(long, default_value_t = 0)]
    pub(crate) messages: u64,
    /// Give up when nothing has moved for this many seconds
    #[arg(long, default_value_t = 15.0)]
    pub(crate) patience: f64,
    /// Seconds to listen on after the last message, for those that should not come
    #[arg(long, default_value_t = 0.2)]
    pub(crate) settle: f64,
    /// Never sleep while publishing; for a generator with a core of its own
    #[arg(long)]
    pub(crate) spin: bool,
    /// No AMQP conversation: two bare connections, the consumer's first, and what is published comes back as it is
    #[arg(long)]
    pub(crate) raw: bool,
}

impl Load {
    /// How the streams are laid out.
    pub(crate) fn layout(&self) -> Layout {
        let Self { producers, queues, consumers, .. } = *self;
        match self.target.mqtt() {
            None if self.fanout => Layout { producers, topics: 1, queues, groups: 1 },
            None => Layout { producers, topics: queues, queues, groups: queues },
            Some(_) if self.wildcard => Layout { producers, topics: queues, queues: consumers, groups: 1 },
            Some(_) => Layout { producers, topics: queues, queues: consumers, groups: queues.min(consumers) },
        }
    }

    /// The queue of consumer number `consumer`, as [`Load::layout`] counts them.
    pub(crate) fn queue_of(&self, consumer: usize) -> usize {
        consumer % self.layout().queues
    }

    /// How many messages of a producer may be without a confirm or acknowledgement; 0: none is asked for.
    pub(crate) fn ahead(&self) -> usize {
        match (self.target.mqtt(), self.qos) {
            (None, _) => self.confirm,
            (Some(_), 0) => 0,
            (Some(_), _) => usize::from(self.inflight),
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), String> {
        let streams = self.producers.max(self.queues);
        let (amqp, groups) = (self.target.mqtt().is_none(), self.queues.min(self.consumers).max(1));
        let rules = [
            (self.producers > 0 && self.queues > 0, "at least one producer and one queue"),
            (!amqp || self.consumers >= self.queues, "at least one consumer to a queue"),
            (self.consumers > 0, "at least one consumer"),
            (
                amqp || self.wildcard || (self.queues % groups, self.consumers % groups) == (0, 0),
                "so many topics and consumers cannot be dealt out evenly",
            ),
            (amqp || !(self.fanout || self.auto_ack || self.raw), "--fanout, --auto-ack and --raw are for AMQP"),
            (amqp || self.confirm == 0, "--confirm is for AMQP; MQTT has --inflight"),
            (!amqp || !(self.wildcard || self.mixed || self.qos > 0), "--wildcard, --mixed and --qos are for MQTT"),
            (streams <= crate::stamp::STREAMS_MAX, "at most 1048576 producers or queues"),
            (self.ack_every > 0, "--ack-every must be positive"),
            (
                self.prefetch == 0 || self.ack_every <= u64::from(self.prefetch),
                "--ack-every beyond --prefetch would stall",
            ),
            (
                !self.raw || (self.producers, self.queues, self.consumers) == (1, 1, 1),
                "--raw has one producer and one consumer",
            ),
            (!self.raw || self.confirm == 0, "--raw has no confirms"),
        ];
        rules.iter().find(|rule| !rule.0).map_or(Ok(()), |rule| Err(rule.1.into()))
    }
}
