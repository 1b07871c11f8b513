"""Brokers a suite can talk to: Portolan as built, a private RabbitMQ to compare with, or any running one."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tomllib
from pathlib import Path

READY_SECONDS = 60
RABBITMQ = Path("/usr/lib/rabbitmq/bin")


class BrokerFailed(Exception):
    """The broker did not start or stop as it should."""


def free_port():
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end(process, how):
    """Sends a signal and waits; an orderly end that does not come is a failure, but leaves nothing running."""
    if process.poll() is not None:
        return process.returncode
    process.send_signal(how)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise BrokerFailed("the broker did not end within 30 s of SIGTERM") from None


class Portolan:
    """The built binary on free ports with a temporary data folder; both stay over a restart."""

    name = "portolan"

    def __init__(self, binary, config=None, settings=(), mqtt=False):
        self.binary, self.config, self.settings = binary, config, list(settings)
        self.folder = Path(tempfile.mkdtemp(prefix="portolan-"))
        self.host, self.port, self.http = "127.0.0.1", free_port(), free_port()
        self.mqtt = free_port() if mqtt else 0
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        command = [str(self.binary), "serve", "--data-dir", str(self.folder / "data")]
        if self.config:
            command += ["--config", str(self.config)]
        command += ["--set", f'listeners.amqp=["127.0.0.1:{self.port}"]']
        command += ["--set", f'listeners.http=["127.0.0.1:{self.http}"]']
        mqtt = f'"127.0.0.1:{self.mqtt}"' if self.mqtt else ""
        command += ["--set", f"listeners.mqtt=[{mqtt}]"]
        for setting in self.settings:
            command += ["--set", setting]
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process.stdout, ready), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while not ready.wait(0.02):
            if self.process.poll() is not None:
                raise BrokerFailed(f"portolan ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerFailed(f"portolan printed no ready line:\n{self.log_tail()}")

    def _read(self, stdout, ready):
        for line in stdout:
            if line.startswith("portolan ready"):
                ready.set()

    def log_tail(self):
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])

    def stop(self):
        code = _end(self.process, signal.SIGTERM)
        if code != 0:
            raise BrokerFailed(f"portolan ended with {code} on SIGTERM:\n{self.log_tail()}")

    def kill(self):
        _end(self.process, signal.SIGKILL)

    def remove(self):
        if self.process:
            self.kill()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class RabbitMq:
    """A private node of the installed RabbitMQ: own name, ports and folders, and the transcripts' users."""

    name, mqtt = "rabbitmq", 0

    def __init__(self, users=None):
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.host, self.port, self.users = "127.0.0.1", free_port(), users
        self.node = f"conformance{self.port}@localhost"
        self.process = None
        (self.folder / "plugins").write_text("[rabbitmq_consistent_hash_exchange].\n")
        (self.folder / "rabbit.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n")

    def _environment(self):
        names = {"MNESIA_BASE": "mnesia", "LOG_BASE": "log", "ENABLED_PLUGINS_FILE": "plugins",
                 "CONFIG_FILE": "rabbit", "PID_FILE": "pid", "CONF_ENV_FILE": "none"}  # fmt: skip
        paths = {f"RABBITMQ_{key}": str(self.folder / name) for key, name in names.items()}
        return {**os.environ, **paths, "HOME": str(self.folder), "RABBITMQ_NODENAME": self.node,
                "RABBITMQ_DIST_PORT": str(free_port())}  # fmt: skip

    def _control(self, *words):
        subprocess.run([RABBITMQ / "rabbitmqctl", "-q", *words], env=self._environment(), check=True, capture_output=True)

    @property
    def pid(self):
        # The launcher is a shell; the node's own process writes this file.
        return int((self.folder / "pid").read_text())

    def start(self):
        first = self.process is None
        (self.folder / "pid").unlink(missing_ok=True)
        self.log = open(self.folder / "out", "ab")
        command = [RABBITMQ / "rabbitmq-server"]
        self.process = subprocess.Popen(command, env=self._environment(), stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                self._control("await_startup", "--timeout", "60")
                break
            except subprocess.CalledProcessError:
                time.sleep(0.5)
        else:
            raise BrokerFailed((self.folder / "out").read_text())
        if first and self.users:
            self._add_users()

    def _add_users(self):
        for user in tomllib.loads(self.users.read_text())["users"]:
            self._control("add_user", user["name"], user["password"])
            for row in user.get("permissions", []):
                self._control("set_permissions", "-p", row["vhost"], user["name"], row["configure"], row["write"], row["read"])
            for row in user.get("topic_permissions", []):
                words = ("set_topic_permissions", "-p", row["vhost"], user["name"], row["exchange"], row["write"], row["read"])
                self._control(*words)

    def stop(self):
        self._control("stop")
        self.process.wait(60)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(30)

    def remove(self):
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mosquitto:
    """The installed Mosquitto on a free port, with its sessions on disk, for the suites that speak MQTT alone."""

    name, port = "mosquitto", 0

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="mosquitto-"))
        self.host, self.mqtt = "127.0.0.1", free_port()
        self.process = None
        (self.folder / "passwords").write_text("")
        subprocess.run(["mosquitto_passwd", "-b", self.folder / "passwords", "guest", "guest"], check=True)
        rows = [f"listener {self.mqtt} 127.0.0.1", "allow_anonymous true", f"password_file {self.folder}/passwords", "persistence true",
                f"persistence_location {self.folder}/", "sys_interval 1", f"user {pwd.getpwuid(os.geteuid()).pw_name}"]  # fmt: skip
        (self.folder / "conf").write_text("\n".join(rows) + "\n")

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(["mosquitto", "-c", self.folder / "conf"], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                socket.create_connection((self.host, self.mqtt)).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BrokerFailed((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self):
        _end(self.process, signal.SIGTERM)

    def kill(self):
        _end(self.process, signal.SIGKILL)

    def remove(self):
        if self.process:
            self.kill()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Remote:
    """A broker somebody else runs; it can be spoken to but not restarted."""

    name, pid = "remote", None

    def __init__(self, address, mqtt=False):
        host, _, port = address.rpartition(":")
        self.host, self.port = host or "127.0.0.1", int(port)
        self.mqtt = self.port if mqtt else 0

    def start(self):
        pass

    def remove(self):
        pass

    def stop(self):
        raise BrokerFailed("a broker given by --peer HOST:PORT cannot be restarted")

    kill = stop


class Control:
    """Lets a suite in any language restart its broker: it connects, writes one word, reads one line.

    restart: SIGTERM and start again. kill: kill -9 and start again. pid: the broker's process id, or 0.
    The answer is `ok` (or the id), or `error: …`. The broker is ready again when the answer comes.
    """

    def __init__(self, broker):
        self.broker = broker
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer, peer.makefile("rw") as stream:
                try:
                    answer = self._do(stream.readline().strip())
                except (BrokerFailed, OSError, subprocess.SubprocessError) as problem:
                    answer = "error: " + " ".join(str(problem).split())
                stream.write(answer + "\n")
                stream.flush()

    def _do(self, word):
        if word == "pid":
            return str(self.broker.pid or 0)
        if word not in ("restart", "kill"):
            return f"error: unknown word {word!r}"
        self.broker.stop() if word == "restart" else self.broker.kill()
        self.broker.start()
        return "ok"

    def close(self):
        self.socket.close()
