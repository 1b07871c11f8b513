"""Those who are measured: Portolan, RabbitMQ, Mosquitto, rumqttd, the bare relay."""

import json
import os
import shutil
import signal
import subprocess
import time

from . import build
from .machine import free_port, occupied, resident, say, start, stop

RABBITMQ_SCRIPTS = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"]
MOSQUITTO = "/usr/sbin/mosquitto"
READY_WITHIN = 600
# What differs from Mosquitto's defaults: that it listens and lets in; that small packets leave at once; that as many
# messages may be in flight as the scenarios ask for, and none is dropped because many wait. (With the default of 20 in
# flight, Mosquitto 2.0.11 does not deliver what waits at QoS 2 when publishing ends.)
MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 0
"""
# rumqttd has no defaults; these are the values of the example that comes with it, with room for 20 000 connections, no
# pause between two of them, and as many messages in flight as the scenarios ask for.
RUMQTTD_CONF = """\
id = 0

[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 1000
dynamic_filters = true
"""


class Contender:
    """Something that listens on a port and can be started, stopped and killed."""

    name = ""
    protocols = ("amqp",)

    def __init__(self, place, load, cores):
        self.place, self.load, self.cores = place, load, cores
        self.process, self.folder, self.port, self.protocol = None, None, None, None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return None

    def prepare(self):
        """Makes ready the folder that was just made."""

    def start_fresh(self, protocol):
        """Starts on an empty folder, to be spoken to by one protocol."""
        self.end()
        self.protocol = protocol
        self.folder, self.port = self.place.folder(self.name), free_port()
        self.prepare()
        return self.start()

    def start(self):
        """Starts on the folder as it is, and returns the seconds until a channel or a connection can be opened."""
        began = time.monotonic_ns()
        self.process = start(self.command(), self.folder / "output.log", self.environment())
        took = (self.await_ready() - began) / 1e9
        if self.cores.pinned:
            self.cores.pin(self.process.pid)
        return took

    def await_ready(self):
        """Waits for the first channel or connection that opens, and returns that moment by the monotonic clock."""
        command = [self.load, "ready", "--proto", self.protocol, "--addr", self.address(), "--deadline", str(READY_WITHIN)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while waiting.poll() is None:
            if self.process.poll() is not None:
                waiting.kill()
                waiting.wait()
                raise Unusable(f"{self.name} ended as soon as it was started:\n{self.last_words()}")
            time.sleep(0.02)
        if waiting.returncode != 0:
            raise Unusable(f"{self.name} was not ready within {READY_WITHIN} s:\n{self.last_words()}")
        return json.loads(waiting.stdout.read())["ready_at_ns"]

    def last_words(self):
        return (self.folder / "output.log").read_text(errors="replace")[-2000:]

    def address(self):
        return f"127.0.0.1:{self.port}"

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, how=signal.SIGTERM):
        if self.process:
            stop(self.process, how)

    def memory(self):
        return resident(self.process.pid)

    def disk(self):
        return occupied(self.folder)

    def end(self):
        """Stops, and removes the folder."""
        self.stop()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.process = self.folder = None


class Unusable(Exception):
    """A contender that cannot take part."""


class Portolan(Contender):
    """The broker of this project."""

    name = "portolan"
    protocols = ("amqp", "mqtt", "mqtt5")

    def __init__(self, binary, *rest):
        super().__init__(*rest)
        self.binary = binary

    def command(self):
        spoken = "amqp" if self.protocol == "amqp" else "mqtt"
        listening = {each: f'["{self.address()}"]' if each == spoken else "[]" for each in ("amqp", "mqtt", "http")}
        settings = [word for each, where in listening.items() for word in ("--set", f"listeners.{each}={where}")]
        return [self.binary, "serve", "--data-dir", self.folder / "data", *settings]

    def disk(self):
        return occupied(self.folder / "data")


class RabbitMQ(Contender):
    """Debian's RabbitMQ as a private node: its own folder, name, cookie, ports and port mapper, no plugins."""

    name = "rabbitmq"

    def __init__(self, script, *rest):
        super().__init__(*rest)
        self.script = script

    def prepare(self):
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("")
        (self.folder / "environment").write_text("")
        self.mapper, self.distribution = free_port(), free_port()

    def command(self):
        return [self.script]

    def environment(self):
        folder = str(self.folder)
        return os.environ | {
            "HOME": folder,
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"portolan-performance-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_PLUGINS_EXPAND_DIR": f"{folder}/plugins",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/environment",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }

    def disk(self):
        return occupied(self.folder / "mnesia")

    def stop(self, how=signal.SIGTERM):
        super().stop(how)
        if self.folder and shutil.which("epmd"):
            # The port mapper was started by this node for itself alone; it refuses to end while a node is registered.
            env = os.environ | {"ERL_EPMD_PORT": str(self.mapper)}
            for _ in range(50):
                done = subprocess.run(["epmd", "-kill"], env=env, capture_output=True, text=True, check=False)
                if "Killed" in done.stdout or "Cannot connect" in done.stderr:
                    break
                time.sleep(0.1)


class Mosquitto(Contender):
    """Debian's Mosquitto."""

    name = "mosquitto"
    protocols = ("mqtt", "mqtt5")

    def prepare(self):
        (self.folder / "mosquitto.conf").write_text(MOSQUITTO_CONF.format(port=self.port))

    def command(self):
        return [MOSQUITTO, "-c", self.folder / "mosquitto.conf"]


class Rumqttd(Contender):
    """rumqttd, as the folder rumqttd-peer builds it."""

    name = "rumqttd"
    protocols = ("mqtt",)

    def __init__(self, binary, *rest):
        super().__init__(*rest)
        self.binary = binary

    def prepare(self):
        (self.folder / "rumqttd.toml").write_text(RUMQTTD_CONF.format(port=self.port))

    def command(self):
        return [self.binary, self.folder / "rumqttd.toml"]


class Relay(Contender):
    """One thread that passes on bytes: the floor."""

    name = "relay"

    def command(self):
        return [self.load, "relay", "--listen", self.address()]

    def await_ready(self):
        time.sleep(0.3)  # a connection would be taken for the first of a pair
        return time.monotonic_ns()


def contenders(wanted, here, place, load, cores):
    """The brokers that are wanted and there."""
    found = []
    for name in wanted:
        if name == "portolan":
            binary = build.portolan(here)
            if binary:
                found.append(Portolan(binary, place, load, cores))
            else:
                say("Portolan is left out: PORTOLAN_BIN names no program, or it does not build.")
        elif name == "rabbitmq":
            script = next((path for path in RABBITMQ_SCRIPTS if os.access(path, os.X_OK)), None)
            if script:
                found.append(RabbitMQ(script, place, load, cores))
            else:
                say("RabbitMQ is left out: it is not installed (Debian: apt-get install rabbitmq-server).")
        elif name == "mosquitto":
            if os.access(MOSQUITTO, os.X_OK):
                found.append(Mosquitto(place, load, cores))
            else:
                say("Mosquitto is left out: it is not installed (Debian: apt-get install mosquitto).")
        elif name == "rumqttd":
            binary = build.rumqttd(here)
            if binary:
                found.append(Rumqttd(binary, place, load, cores))
            else:
                say("rumqttd is left out: RUMQTTD_BIN names no program, or it does not build.")
        else:
            raise SystemExit(f"no broker {name}; there are: portolan rabbitmq mosquitto rumqttd")
    return found
