"""MQTT packets of 3.1, 3.1.1 and 5.0 to bytes and back; it writes wrong packets as gladly as right ones."""

import struct
from dataclasses import dataclass, field

V31, V311, V5 = 3, 4, 5
NAMES = {V31: "3.1", V311: "3.1.1", V5: "5"}
(CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ,
 PINGRESP, DISCONNECT, AUTH) = range(1, 16)  # fmt: skip

# Property identifiers by name, with how the value is written: 1, 2 or 4 bytes, v(ariable), s(tring), b(ytes), p(air).
PROPERTIES = {
    "payload_format": (0x01, "1"), "message_expiry": (0x02, "4"), "content_type": (0x03, "s"),
    "response_topic": (0x08, "s"), "correlation_data": (0x09, "b"), "subscription_identifier": (0x0B, "v"),
    "session_expiry": (0x11, "4"), "assigned_client_id": (0x12, "s"), "server_keep_alive": (0x13, "2"),
    "authentication_method": (0x15, "s"), "authentication_data": (0x16, "b"), "request_problem": (0x17, "1"),
    "will_delay": (0x18, "4"), "request_response": (0x19, "1"), "response_information": (0x1A, "s"),
    "server_reference": (0x1C, "s"), "reason_string": (0x1F, "s"), "receive_maximum": (0x21, "2"),
    "topic_alias_maximum": (0x22, "2"), "topic_alias": (0x23, "2"), "maximum_qos": (0x24, "1"),
    "retain_available": (0x25, "1"), "user": (0x26, "p"), "maximum_packet_size": (0x27, "4"),
    "wildcard_available": (0x28, "1"), "identifiers_available": (0x29, "1"), "shared_available": (0x2A, "1"),
}  # fmt: skip
BY_ID = {number: (name, kind) for name, (number, kind) in PROPERTIES.items()}


class Wrong(Exception):
    """The server sent bytes that are no packet of its version."""


def variable(number):
    """A variable byte integer in its shortest form."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def binary(value):
    """Bytes, or a text as UTF-8, behind their length."""
    value = value.encode() if isinstance(value, str) else bytes(value)
    return struct.pack(">H", len(value)) + value


def _property(name, value):
    number, kind = PROPERTIES[name]
    if kind == "p":
        written = binary(value[0]) + binary(value[1])
    elif kind in "sb":
        written = binary(value)
    elif kind == "v":
        written = variable(value)
    else:
        written = struct.pack({"1": ">B", "2": ">H", "4": ">I"}[kind], value)
    return bytes([number]) + written


def block(properties):
    """A property block from [(name, value)], in that order."""
    body = b"".join(_property(name, value) for name, value in properties)
    return variable(len(body)) + body


def packet(kind, flags, *parts):
    """Any packet: its first byte, the length, the rest."""
    body = b"".join(parts)
    return bytes([kind << 4 | flags]) + variable(len(body)) + body


@dataclass
class Will:
    """What CONNECT says about the will."""

    topic: str
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    properties: list = field(default_factory=list)


def connect(version, client_id, clean=True, keep_alive=60, will=None, user=None, password=None, properties=(), level=None):
    """CONNECT."""
    flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    tail = binary(client_id)
    if will:
        flags |= 4 | will.qos << 3 | (0x20 if will.retain else 0)
        tail += (block(will.properties) if version == V5 else b"") + binary(will.topic) + binary(will.payload)
    tail += binary(user) if user is not None else b""
    tail += binary(password) if password is not None else b""
    head = binary("MQIsdp" if version == V31 else "MQTT") + bytes([level or version, flags]) + struct.pack(">H", keep_alive)
    return packet(CONNECT, 0, head, block(properties) if version == V5 else b"", tail)


def publish(version, topic, payload=b"", qos=0, number=0, retain=False, dup=False, properties=()):
    """PUBLISH."""
    payload = payload.encode() if isinstance(payload, str) else payload
    head = binary(topic) + (struct.pack(">H", number) if qos else b"")
    flags = (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    return packet(PUBLISH, flags, head, block(properties) if version == V5 else b"", payload)


def ack(version, kind, number, reason=0, properties=()):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    more = b""
    if version == V5 and (reason or properties):
        more = bytes([reason]) + (block(properties) if properties else b"")
    return packet(kind, 2 if kind == PUBREL else 0, struct.pack(">H", number), more)


def subscribe(version, number, filters, properties=()):
    """SUBSCRIBE to [(filter, options byte)]."""
    tail = b"".join(binary(text) + bytes([options]) for text, options in filters)
    return packet(SUBSCRIBE, 2, struct.pack(">H", number), block(properties) if version == V5 else b"", tail)


def unsubscribe(version, number, filters, properties=()):
    """UNSUBSCRIBE."""
    tail = b"".join(binary(text) for text in filters)
    return packet(UNSUBSCRIBE, 2, struct.pack(">H", number), block(properties) if version == V5 else b"", tail)


def disconnect(version, reason=0, properties=()):
    """DISCONNECT; before 5.0 it says nothing."""
    if version != V5 or not (reason or properties):
        return packet(DISCONNECT, 0)
    return packet(DISCONNECT, 0, bytes([reason]), block(properties) if properties else b"")


def auth(reason, properties):
    """AUTH of 5.0."""
    return packet(AUTH, 0, bytes([reason]), block(properties))


def options(qos=0, no_local=False, as_published=False, handling=0):
    """The options byte of a subscription."""
    return qos | (4 if no_local else 0) | (8 if as_published else 0) | handling << 4


PING = packet(PINGREQ, 0)


@dataclass
class Packet:
    """What the server sent."""

    kind: int
    flags: int
    raw: bytes
    number: int = 0
    reason: int = 0
    reasons: tuple = ()
    present: int = 0
    topic: str = ""
    payload: bytes = b""
    properties: list = field(default_factory=list)

    @property
    def qos(self):
        return self.flags >> 1 & 3

    @property
    def retain(self):
        return bool(self.flags & 1)

    @property
    def dup(self):
        return bool(self.flags & 8)

    def get(self, name, otherwise=None):
        """The first property of that name."""
        return next((value for key, value in self.properties if key == name), otherwise)

    def all(self, name):
        """Every value of that name, in order."""
        return [value for key, value in self.properties if key == name]


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Wrong(f"cut short: {self.data.hex()}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def binary(self):
        return self.take(self.number(2))

    def text(self):
        return self.binary().decode()

    def variable(self):
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value
            if shift > 21:
                raise Wrong(f"a length of five bytes: {self.data.hex()}")

    def rest(self):
        return self.take(len(self.data) - self.at)

    def block(self):
        inner = _Reader(self.take(self.variable()))
        found = []
        while inner.at < len(inner.data):
            number = inner.variable()
            if number not in BY_ID:
                raise Wrong(f"unknown property {number:#x}")
            name, kind = BY_ID[number]
            if kind == "p":
                value = (inner.text(), inner.text())
            elif kind == "s":
                value = inner.text()
            elif kind == "b":
                value = inner.binary()
            elif kind == "v":
                value = inner.variable()
            else:
                value = inner.number(int(kind))
            found.append((name, value))
        return found


def parse(version, first, body, raw):
    """A packet that a server may send in that version; anything else is Wrong."""
    kind, flags, read = first >> 4, first & 15, _Reader(body)
    found = Packet(kind, flags, raw)
    wanted = 2 if kind == PUBREL else 0
    if kind != PUBLISH and flags != wanted:
        raise Wrong(f"flags {flags:#x} in {raw.hex()}")
    if kind == CONNACK:
        found.present, found.reason = read.number(1), read.number(1)
        if found.present > 1:
            raise Wrong(f"reserved acknowledge flags in {raw.hex()}")
        found.properties = read.block() if version == V5 else []
    elif kind == PUBLISH:
        if found.qos == 3:
            raise Wrong("QoS 3")
        found.topic = read.text()
        found.number = read.number(2) if found.qos else 0
        found.properties = read.block() if version == V5 else []
        found.payload = read.rest()
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        found.number = read.number(2)
        if version == V5 and read.at < len(body):
            found.reason = read.number(1)
            found.properties = read.block() if read.at < len(body) else []
    elif kind in (SUBACK, UNSUBACK):
        found.number = read.number(2)
        found.properties = read.block() if version == V5 else []
        found.reasons = tuple(read.rest())
    elif kind in (DISCONNECT, AUTH) and version == V5:
        found.reason = read.number(1) if body else 0
        found.properties = read.block() if read.at < len(body) else []
    elif kind != PINGRESP:
        raise Wrong(f"no packet for a {NAMES[version]} client: {raw.hex()}")
    if read.at != len(body):
        raise Wrong(f"bytes left over in {raw.hex()}")
    return found
