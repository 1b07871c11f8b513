"""A client that does what a check tells it, step by step, over a socket of its own."""

import itertools
import os
import socket
import time

from . import codec
from .codec import CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK, V5

HOST = os.environ.get("BROKER_HOST", "127.0.0.1")
PORT = int(os.environ.get("BROKER_MQTT", "1883"))
DEADLINE = 20.0
_numbers = itertools.count(1)


class Closed(Exception):
    """The server closed the connection."""


class Unexpected(AssertionError):
    """Another packet came than the one waited for."""


def fresh(prefix="t"):
    """A topic or client id no other check uses."""
    return f"{prefix}{os.getpid()}n{next(_numbers)}"


class Raw:
    """A socket with packets: nothing is sent, acknowledged or checked for the caller."""

    def __init__(self, version, host=None, port=None):
        self.version, self.buffer, self.seen = version, b"", []
        self.socket = socket.create_connection((host or HOST, port or PORT), timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *packets):
        """Sends bytes; that the server has closed already shows when reading."""
        try:
            self.socket.sendall(b"".join(packets))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _fill(self, count):
        while len(self.buffer) < count:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"nothing within {self.socket.gettimeout():.1f} s") from None
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed(f"closed after {self.buffer.hex()}" if self.buffer else "closed")
            self.buffer += more

    def packet(self, deadline=DEADLINE):
        """The next packet of the server; Closed at the end of the stream."""
        self.socket.settimeout(deadline)
        length = shift = 0
        at = 1
        while True:
            self._fill(at + 1)
            byte = self.buffer[at]
            length |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if not byte & 128:
                break
            if at > 5:
                raise codec.Wrong("a remaining length of five bytes")
        self._fill(at + length)
        raw, self.buffer = self.buffer[: at + length], self.buffer[at + length :]
        found = codec.parse(self.version, raw[0], raw[at:], raw)
        self.seen.append(found)
        return found

    def expect(self, kind, number=None, deadline=DEADLINE):
        """The next packet, which must be of that kind (and with that packet id)."""
        found = self.packet(deadline)
        if found.kind != kind or number not in (None, found.number):
            raise Unexpected(f"wanted a packet of type {kind} (id {number}), got {found}")
        return found

    def ended(self, reasons=(), deadline=DEADLINE):
        """The server closes; a 5.0 client may be told why before, with one of the codes given.

        Deliveries and acknowledgements that were under way may still come first. Returns the code, or None.
        """
        told = None
        while True:
            try:
                found = self.packet(deadline)
            except Closed:
                break
            if told is not None:
                raise Unexpected(f"after DISCONNECT came {found}")
            if found.kind == DISCONNECT:
                told = found.reason
        if told is not None and told not in reasons:
            raise AssertionError(f"DISCONNECT {told:#04x}, wanted one of {[hex(code) for code in reasons]}")
        if self.version == V5 and reasons and told is None:
            raise AssertionError(f"closed without a reason, wanted one of {[hex(code) for code in reasons]}")
        return told

    def drop(self):
        """The network fails: the connection is gone without a word."""
        self.socket.close()

    close = drop

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class Client(Raw):
    """A connected client. Deliveries are kept in `inbox` and acknowledged unless `manual`."""

    def __init__(self, version, client_id=None, clean=True, manual=False, expect=0, port=None, **options):
        super().__init__(version, port=port)
        self.client_id = fresh("c") if client_id is None else client_id
        self.manual, self.inbox, self._ids, self.other = manual, [], itertools.count(1), []
        self.send(codec.connect(version, self.client_id, clean, **options))
        self.connack = self.expect(CONNACK)
        if self.connack.reason != expect:
            raise AssertionError(f"CONNACK {self.connack.reason:#04x}, wanted {expect:#04x}")

    @property
    def present(self):
        return bool(self.connack.present)

    def number(self):
        """A packet id not used yet on this connection."""
        return next(self._ids)

    def _handle(self, found):
        """What a well-behaved client does with a packet nobody is waiting for."""
        if found.kind == PUBLISH:
            self.inbox.append(found)
            if found.qos and not self.manual:
                self.send(codec.ack(self.version, PUBACK if found.qos == 1 else PUBREC, found.number))
        elif found.kind == PUBREL and not self.manual:
            self.send(codec.ack(self.version, PUBCOMP, found.number))
        elif found.kind == DISCONNECT:
            raise Closed(f"DISCONNECT {found.reason:#04x} {found.get('reason_string', '')}")
        else:
            self.other.append(found)

    def wait(self, kind, number=None, deadline=DEADLINE):
        """Waits for that packet; deliveries that come before it go to the inbox."""
        while True:
            for kept in self.other:
                if kept.kind == kind and number in (None, kept.number):
                    self.other.remove(kept)
                    return kept
            found = self.packet(deadline)
            if found.kind == kind and number in (None, found.number):
                return found
            self._handle(found)

    def publish(self, topic, payload=b"m", qos=0, retain=False, properties=(), dup=False, number=None, wanted=(0, 0x10)):
        """PUBLISH with its whole handshake; returns the PUBACK or PUBREC."""
        number = (number or self.number()) if qos else 0
        self.send(codec.publish(self.version, topic, payload, qos, number, retain, dup, properties))
        if not qos:
            return None
        answer = self.wait(PUBACK if qos == 1 else PUBREC, number)
        if answer.reason not in wanted:
            raise AssertionError(f"PUBLISH was answered {answer.reason:#04x}")
        if qos == 2 and answer.reason < 0x80:
            self.send(codec.ack(self.version, PUBREL, number))
            self.wait(PUBCOMP, number)
        return answer

    def subscribe(self, *filters, qos=0, properties=(), granted=None, **more):
        """SUBSCRIBE to texts with the same options, or to (text, options byte); returns the SUBACK."""
        rows = [(row, codec.options(qos, **more)) if isinstance(row, str) else row for row in filters]
        number = self.number()
        self.send(codec.subscribe(self.version, number, rows, properties))
        answer = self.wait(SUBACK, number)
        wanted = tuple(row[1] & 3 for row in rows) if granted is None else granted
        if answer.reasons != wanted:
            raise AssertionError(f"SUBACK {answer.reasons}, wanted {wanted}")
        return answer

    def unsubscribe(self, *filters):
        """UNSUBSCRIBE; returns the UNSUBACK."""
        number = self.number()
        self.send(codec.unsubscribe(self.version, number, filters))
        return self.wait(UNSUBACK, number)

    def next(self, deadline=DEADLINE):
        """The next delivery, settled."""
        while not self.inbox:
            self._handle(self.packet(deadline))
        return self.inbox.pop(0)

    def payloads(self, count):
        """The payloads of the next deliveries."""
        return [self.next().payload for _ in range(count)]

    def ping(self):
        """One round trip: all that the server has answered before is here now."""
        self.send(codec.PING)
        self.wait(PINGRESP)

    def nothing(self, publisher=None):
        """Asserts that no delivery comes. What was published before is known to have been routed, because a message
        published now arrives, for which this client makes a subscription of its own."""
        mark = fresh("mark")
        self.subscribe(mark)
        (publisher or self).publish(mark, mark, qos=1)
        got = []
        while True:
            found = self.next()
            if found.topic == mark:
                break
            got.append((found.topic, found.payload))
        self.unsubscribe(mark)
        if got:
            raise AssertionError(f"wanted nothing, got {got[:5]}")

    def settle(self, found):
        """Finishes one delivery that was taken by hand."""
        if found.qos == 1:
            self.send(codec.ack(self.version, PUBACK, found.number))
        elif found.qos == 2:
            self.send(codec.ack(self.version, PUBREC, found.number))
            self.wait(PUBREL, found.number)
            self.send(codec.ack(self.version, PUBCOMP, found.number))

    def leave(self, reason=0, properties=()):
        """DISCONNECT, and the server closes."""
        self.send(codec.disconnect(self.version, reason, properties))
        self.ended()
        self.socket.close()


def until(condition, what, deadline=DEADLINE):
    """Asks again until it is so."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about")
        time.sleep(0.02)
    return found
