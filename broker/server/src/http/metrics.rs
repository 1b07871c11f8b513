//! The text that Prometheus reads: RabbitMQ's names where a dashboard or an alert rule expects them, our own for
//! what RabbitMQ does not have.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_core::counters::{Counter, Counters};

use super::Panel;
use crate::process;
use crate::status::{Gauges, Phase};

/// The label that RabbitMQ gives to traffic of this protocol.
const AMQP: &str = "{protocol=\"amqp091\"}";
/// And to deliveries from queues.
const AMQP_QUEUE: &str = "{protocol=\"amqp091\",queue_type=\"rabbit_classic_queue\"}";

/// Renders everything.
pub(super) fn render(panel: &Panel) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    page.identity(panel);
    page.process(panel);
    page.alarms(panel);
    page.traffic(&panel.counters);
    page.objects(&panel.counters);
    page.mqtt(&panel.counters);
    if let Some(desk) = panel.desk.get() {
        page.gauge("portolan_mqtt_connections", "MQTT clients connected", desk.clients.count().0);
    }
    if let Some(status) = panel.status.get() {
        page.gauges(&status.gauges());
    }
    page.0
}

struct Page(String);

impl Page {
    fn sample(&mut self, kind: &str, name: &str, labels: &str, help: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.sample("gauge", name, "", help, value);
    }

    fn counter(&mut self, name: &str, labels: &str, help: &str, value: impl Display) {
        self.sample("counter", name, labels, help, value);
    }

    /// RabbitMQ's Grafana dashboards join every panel with these two.
    fn identity(&mut self, panel: &Panel) {
        let node = escaped(&panel.node);
        let labels = format!(
            "{{rabbitmq_node=\"{node}\",rabbitmq_cluster=\"{node}\",rabbitmq_cluster_permanent_id=\"{node}\"}}"
        );
        self.sample("gauge", "rabbitmq_identity_info", &labels, "Names of the node", 1);
        let labels = format!(
            "{{rabbitmq_version=\"{}\",product_name=\"{}\",product_version=\"{}\"}}",
            escaped(&panel.product_version),
            escaped(&panel.product),
            escaped(&panel.product_version),
        );
        self.sample("gauge", "rabbitmq_build_info", &labels, "What is announced to clients", 1);
        let labels = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        self.sample("gauge", "portolan_build_info", &labels, "What is running", 1);
        let ready = u8::from(*panel.lifecycle.phase() == Phase::Ready);
        self.gauge("portolan_ready", "1 while clients are served", ready);
    }

    fn process(&mut self, panel: &Panel) {
        let memory = process::memory();
        let started = panel.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let uptime = SystemTime::now().duration_since(panel.started_at).unwrap_or_default().as_secs_f64();
        self.gauge("process_resident_memory_bytes", "Resident memory", memory.resident);
        self.counter("process_cpu_seconds_total", "", "Processor time", process::cpu_seconds());
        self.gauge("process_start_time_seconds", "Start, seconds since the epoch", started);
        self.gauge("process_open_fds", "Open files", process::open_files());
        self.gauge("process_max_fds", "Files that may be open", process::file_limit());
        self.gauge("rabbitmq_process_resident_memory_bytes", "Memory held against its mark", memory.anonymous);
        self.gauge("rabbitmq_resident_memory_limit_bytes", "Memory at which publishers block", panel.marks.memory);
        self.gauge("rabbitmq_process_open_fds", "Open files", process::open_files());
        self.gauge("rabbitmq_process_max_fds", "Files that may be open", process::file_limit());
        self.gauge("rabbitmq_erlang_uptime_seconds", "Time since the start", uptime);
        if let Some(free) = process::disk_free(&panel.marks.folder) {
            self.gauge("rabbitmq_disk_space_available_bytes", "Free disk space of the data folder", free);
        }
        let floor = panel.marks.disk_free;
        self.gauge("rabbitmq_disk_space_available_limit_bytes", "Free space below which publishers block", floor);
    }

    fn alarms(&mut self, panel: &Panel) {
        let shortage = panel.alarms.alarms().shortage();
        let memory = u8::from(shortage.memory);
        let disk = u8::from(shortage.disk);
        self.gauge("rabbitmq_alarms_memory_used_watermark", "1 while publishers are blocked for memory", memory);
        self.gauge("rabbitmq_alarms_free_disk_space_watermark", "1 while publishers are blocked for disk", disk);
    }

    fn traffic(&mut self, counters: &Counters) {
        let p = &counters.published;
        let d = &counters.delivered;
        let by_protocol: [(&str, &str, &Counter); 6] = [
            ("received", "Messages received from publishers", &p.received),
            ("received_confirm", "Messages received on channels in confirm mode", &p.received_confirm),
            ("routed", "Messages that reached a queue", &p.routed),
            ("confirmed", "Messages confirmed to publishers", &p.confirmed),
            ("unroutable_returned", "Mandatory messages without a queue, returned", &p.unroutable_returned),
            ("unroutable_dropped", "Messages without a queue, dropped", &p.unroutable_dropped),
        ];
        for (what, help, counter) in by_protocol {
            self.counter(&format!("rabbitmq_global_messages_{what}_total"), AMQP, help, counter.get());
        }
        let by_queue: [(&str, &str, &Counter); 7] = [
            ("delivered_consume_manual_ack", "Delivered to consumers that acknowledge", &d.consume_manual),
            ("delivered_consume_auto_ack", "Delivered to consumers that do not", &d.consume_auto),
            ("delivered_get_manual_ack", "Fetched, to be acknowledged", &d.get_manual),
            ("delivered_get_auto_ack", "Fetched, not to be acknowledged", &d.get_auto),
            ("get_empty", "Fetches from an empty queue", &d.get_empty),
            ("redelivered", "Deliveries that were not the first", &d.redelivered),
            ("acknowledged", "Deliveries acknowledged", &d.acknowledged),
        ];
        for (what, help, counter) in by_queue {
            self.counter(&format!("rabbitmq_global_messages_{what}_total"), AMQP_QUEUE, help, counter.get());
        }
        let all = "Deliveries of every kind";
        self.counter("rabbitmq_global_messages_delivered_total", AMQP_QUEUE, all, d.total());
        self.counter("rabbitmq_connection_incoming_bytes_total", "", "Bytes read from clients", p.bytes_in.get());
        self.counter("rabbitmq_connection_outgoing_bytes_total", "", "Bytes written to clients", d.bytes_out.get());
        self.counter("portolan_messages_paged_out_total", "", "Bodies given up from memory", d.paged_out.get());
        self.counter("portolan_messages_paged_in_total", "", "Bodies read back from the journal", d.paged_in.get());
    }

    fn mqtt(&mut self, counters: &Counters) {
        let (received, delivered) = (&counters.mqtt_received, &counters.mqtt_delivered);
        self.by_qos("portolan_mqtt_messages_received_total", "Messages published, by QoS", &received.messages);
        self.by_qos("portolan_mqtt_messages_delivered_total", "Messages delivered, by QoS", &delivered.messages);
        let table: [(&str, &str, &Counter); 8] = [
            ("messages_denied", "Publishes without the right to them, or above the rate", &received.denied),
            ("messages_dropped", "Messages that a session did not get", &delivered.dropped),
            ("payload_bytes_received", "Bytes of payloads published", &received.payload_bytes),
            ("payload_bytes_delivered", "Bytes of payloads delivered", &delivered.payload_bytes),
            ("packets_received", "Packets of every kind", &received.packets),
            ("packets_sent", "Packets of every kind", &delivered.packets),
            ("bytes_received", "Bytes read", &received.bytes),
            ("bytes_sent", "Bytes written", &delivered.bytes),
        ];
        for (what, help, counter) in table {
            self.counter(&format!("portolan_mqtt_{what}_total"), "", help, counter.get());
        }
    }

    fn by_qos(&mut self, name: &str, help: &str, counters: &[Counter; 3]) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} counter");
        for (qos, counter) in counters.iter().enumerate() {
            let _ = writeln!(self.0, "{name}{{qos=\"{qos}\"}} {}", counter.get());
        }
    }

    fn objects(&mut self, counters: &Counters) {
        let o = &counters.objects;
        let table: [(&str, &str, &Counter); 7] = [
            ("connections_opened", "Connections accepted", &o.connections_opened),
            ("connections_closed", "Connections ended", &o.connections_closed),
            ("channels_opened", "Channels opened", &o.channels_opened),
            ("channels_closed", "Channels closed", &o.channels_closed),
            ("queues_declared", "Queue declarations", &o.queues_declared),
            ("queues_created", "Queues made", &o.queues_created),
            ("queues_deleted", "Queues deleted", &o.queues_deleted),
        ];
        for (what, help, counter) in table {
            self.counter(&format!("rabbitmq_{what}_total"), "", help, counter.get());
        }
        let (good, bad) = (o.logins_succeeded.get(), o.logins_failed.get());
        self.counter("rabbitmq_auth_attempts_total", AMQP, "Logins tried", good + bad);
        self.counter("rabbitmq_auth_attempts_succeeded_total", AMQP, "Logins that succeeded", good);
        self.counter("rabbitmq_auth_attempts_failed_total", AMQP, "Logins refused", bad);
        let verified = o.passwords_verified.get();
        self.counter("portolan_passwords_verified_total", "", "Passwords hashed to verify them", verified);
    }

    fn gauges(&mut self, g: &Gauges) {
        let table: [(&str, &str, u64); 20] = [
            ("rabbitmq_connections", "Open connections", g.connections),
            ("rabbitmq_channels", "Open channels", g.channels),
            ("rabbitmq_consumers", "Consumers", g.consumers),
            ("rabbitmq_queues", "Queues", g.queues),
            ("portolan_exchanges", "Exchanges", g.exchanges),
            ("portolan_bindings", "Bindings", g.bindings),
            ("rabbitmq_queue_messages_ready", "Messages that wait for a consumer", g.messages_ready),
            ("rabbitmq_queue_messages_unacked", "Messages held by consumers", g.messages_unsettled),
            ("rabbitmq_queue_messages", "Messages in queues", g.messages_ready + g.messages_unsettled),
            ("rabbitmq_queue_messages_bytes", "Bytes of their bodies", g.message_bytes),
            ("rabbitmq_queue_messages_ram_bytes", "Bytes of bodies in memory", g.resident_bytes),
            ("rabbitmq_queue_messages_paged_out", "Messages whose body is in the journal only", g.messages_paged),
            ("portolan_connections_blocked", "Connections not read because of an alarm", g.connections_blocked),
            ("portolan_mqtt_sessions", "Sessions, with and without a connection", g.sessions),
            ("portolan_mqtt_subscriptions", "Subscriptions of sessions", g.subscriptions),
            ("portolan_retained_messages", "Retained messages", g.retained),
            ("portolan_retained_bytes", "Bytes of memory that they take", g.retained_bytes),
            ("portolan_journal_bytes", "Bytes of the journal on disk", g.journal_bytes),
            ("portolan_journal_durable_index", "Last record on stable storage", g.journal_durable),
            (
                "portolan_journal_durable_lag",
                "Records appended and not yet on stable storage",
                g.journal_last.saturating_sub(g.journal_durable),
            ),
        ];
        for (name, help, value) in table {
            self.gauge(name, help, value);
        }
    }
}

/// A label's value: the format's three escapes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
