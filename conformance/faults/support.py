"""A broker of the check's own with a folder to be meddled with, and a client that numbers its messages."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import BrokerFailed, Portolan  # noqa: E402
from rawamqp import codec  # noqa: E402
from rawamqp.client import Closed, Connection  # noqa: E402, F401

BINARY = Path(os.environ.get("PORTOLAN", "portolan"))
SEGMENT = 1 << 20
DEADLINE = 60
QUEUE = "numbered"


class Skip(Exception):
    """The machine does not let us do this; the text says what is missing."""


def until(what, condition):
    """Waits for the event itself, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {DEADLINE} s"
        time.sleep(0.02)


class Broker(Portolan):
    """The binary on a data folder that may be a small disk or a damaged copy."""

    def __init__(self, *settings, copy_of=None, disk=None):
        super().__init__(BINARY, settings=[f'storage.segment_bytes="{SEGMENT}B"', *settings])
        self.data = self.folder / "data"
        self.disk = disk
        if copy_of:
            shutil.copytree(copy_of, self.data)
        elif disk:
            self.data.mkdir()
            mount(self.data, disk)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process and self.process.poll() is None:
            self.kill()
        text = self.text() if self.process else ""
        if self.disk:
            subprocess.run(["umount", "-l", self.data], check=False)
        self.remove()
        # sled is meant to panic on a thread of its own when its files are damaged, and only there.
        panics = [line for line in text.splitlines() if "panicked at" in line and "checkpoint" not in line]
        assert kind or not panics, f"panicked: {panics[:3]}"

    def text(self):
        return (self.folder / "log").read_text(errors="replace")

    def refused(self, code, *words):
        """The broker ends by itself with that exit code, and says all these words."""
        try:
            self.start()
        except BrokerFailed:
            pass
        else:
            raise AssertionError("the broker started")
        assert self.process.returncode == code, f"exit code {self.process.returncode}, wanted {code}: {self.log_tail()}"
        said = next((line for line in self.text().splitlines() if line.startswith("portolan: ")), "")
        missing = [word for word in words if word not in said]
        assert not missing, f"{missing} not in: {said}"

    def said(self, *words):
        """Waits for a line of the log with all these words."""
        found = lambda: any(all(word in line for word in words) for line in self.text().splitlines())  # noqa: E731
        until(f"log line with {words}", found)

    def segments(self):
        return sorted((self.data / "journal").glob("*.seg"))


def mount(folder, size):
    """A disk of its own in memory."""
    if os.geteuid() != 0:
        raise Skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip("cannot mount a small file system: " + " ".join(done.stderr.split()))


class Client(Connection):
    """Publishes numbers and remembers which are confirmed; takes them back in order."""

    def __init__(self, broker, confirms=True):
        super().__init__(broker.host, broker.port, timeout=DEADLINE)
        self.login()
        self.open()
        self.blocked, self.sent, self.pending = False, {}, set()
        self.confirmed, self.refused = set(), set()
        if confirms:
            self.call("confirm.select")

    def declare(self):
        self.call("queue.declare", queue=QUEUE, durable=True)

    def put(self, number, size):
        """Publishes one number without waiting."""
        tag = len(self.sent) + 1
        self.sent[tag] = number
        self.pending.add(tag)
        self.publish(str(number).encode().ljust(size), routing_key=QUEUE, delivery_mode=2)

    def hear(self, seconds):
        """Takes one confirm or alarm; False when none came in time."""
        try:
            _, name, values = self.method(seconds)
        except TimeoutError:
            return False
        if name in ("connection.blocked", "connection.unblocked"):
            self.blocked = name == "connection.blocked"
            return True
        assert name in ("basic.ack", "basic.nack"), name
        tags = {tag for tag in self.pending if tag <= values["delivery"]} if values["multiple"] else {values["delivery"]}
        self.pending -= tags
        (self.confirmed if name == "basic.ack" else self.refused).update(self.sent[tag] for tag in tags)
        return True

    def settle(self):
        """Waits until everything sent is answered."""
        deadline = time.monotonic() + DEADLINE
        while self.pending or self.blocked:
            assert time.monotonic() < deadline, f"{len(self.pending)} unconfirmed, blocked: {self.blocked}"
            self.hear(1)

    def take(self, most=1 << 30):
        """Gets and acknowledges up to that many messages; returns their numbers."""
        numbers = []
        while len(numbers) < most:
            self.send(codec.method("basic.get", 1, queue=QUEUE))
            _, name, values = self.method()
            if name == "basic.get-empty":
                break
            size, data = codec.decode_header(self.frame().payload)[1], b""
            while len(data) < size:
                data += self.frame().payload
            numbers.append(int(data))
            self.send(codec.method("basic.ack", 1, delivery=values["delivery"]))
        return numbers


def once(numbers, wanted, may=()):
    """Each wanted number is there once, in order, and nothing else than may be."""
    wanted, found = set(wanted), set(numbers)
    assert len(found) == len(numbers), f"{len(numbers) - len(found)} came twice"
    assert numbers == sorted(numbers), "out of order"
    lost, strange = sorted(wanted - found), sorted(found - wanted - set(may))
    assert not lost, f"{len(lost)} confirmed are lost, from {lost[0]} to {lost[-1]}"
    assert not strange, f"{len(strange)} were never to come, such as {strange[0]}"
