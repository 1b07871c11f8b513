"""A blocking connection on one socket: send anything, receive frame by frame with a deadline."""

import socket
import time

from . import codec

# As the Java and Python clients announce themselves; without these a broker answers more tersely.
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Closed(Exception):
    """The broker closed the TCP connection (an orderly end and a reset are one to us)."""


class Unexpected(Exception):
    """The broker sent something else than was waited for."""


class Connection:
    """One TCP connection to a broker."""

    def __init__(self, host, port, timeout=20.0):
        self.timeout = timeout
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()

    def drop(self):
        """Closes the socket without a goodbye."""
        self.socket.close()

    def finish(self):
        """Says that nothing more will be sent; the broker may have hung up already."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def send(self, *pieces):
        """Writes the given bytes at once. A peer that already hung up shows when reading."""
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(b"".join(pieces))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def frame(self, timeout=None):
        """The next frame; raises Closed at the end and TimeoutError at the deadline."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            found = codec.cut(self.buffer)
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame within the deadline")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError as error:
                raise Closed from error
            if not data:
                raise Closed
            self.buffer += data

    def method(self, timeout=None):
        """The next method frame as (channel, name, values); heartbeats are skipped."""
        while True:
            got = self.frame(timeout)
            if got.kind == codec.METHOD:
                return (got.channel, *codec.decode_method(got.payload))
            if got.kind != codec.HEARTBEAT:
                raise Unexpected(f"frame of type {got.kind} on channel {got.channel}")

    def expect(self, name):
        """Waits for the method `name` and returns its fields."""
        channel, got, values = self.method()
        if got != name:
            raise Unexpected(f"wanted {name}, got {got} on channel {channel}: {values}")
        return values

    def call(self, name, channel=1, **values):
        """Sends a method and waits for its -ok."""
        self.send(codec.method(name, channel, **values))
        answer = {"basic.get": "basic.get-ok"}.get(name, name + "-ok")
        return self.expect(answer)

    def login(self, user="guest", password="guest", vhost="/", tune=None, properties=None):
        """The whole handshake; returns the server's properties and its tune values."""
        self.send(codec.PROTOCOL_HEADER)
        start = self.expect("connection.start")
        if properties is None:
            properties = {"product": "conformance", "capabilities": CAPABILITIES}
        self.send(
            codec.method(
                "connection.start-ok", 0, client_properties=properties, mechanism="PLAIN",
                response=f"\0{user}\0{password}", locale="en_US",
            )
        )  # fmt: skip
        offered = self.expect("connection.tune")
        chosen = {**offered, "heartbeat": 0, **(tune or {})}
        self.send(
            codec.method("connection.tune-ok", 0, **{k.replace("-", "_"): v for k, v in chosen.items()}),
            codec.method("connection.open", 0, vhost=vhost),
        )
        self.expect("connection.open-ok")
        return start["server-properties"], offered

    def open(self, channel=1):
        """Opens a channel."""
        self.call("channel.open", channel)

    def publish(self, data, channel=1, exchange="", routing_key="", mandatory=False, **properties):
        """Sends one message in one write."""
        self.send(
            codec.method("basic.publish", channel, exchange=exchange, routing_key=routing_key, mandatory=mandatory),
            codec.header(channel, len(data), **properties),
            *(codec.body(channel, data[i : i + 131064]) for i in range(0, len(data), 131064)),
        )

    def close(self):
        """An orderly goodbye; frames still on their way are skipped."""
        self.send(codec.method("connection.close", 0, code=200, text="bye"))
        try:
            while True:
                got = self.frame()
                if got.kind == codec.METHOD and codec.decode_method(got.payload)[0] == "connection.close-ok":
                    break
        except Closed:
            pass
        self.drop()
