"""Bytes to frames and back. Written against the specification, not against any broker's code."""

import struct
from collections import namedtuple

from .methods import BY_ID, BY_NAME, PROPERTIES

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

Frame = namedtuple("Frame", "kind channel payload")


class Typed(namedtuple("Typed", "tag value")):
    """A field-table value with its wire tag, so that a test can choose and see the tag."""


_FIXED = {
    "b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I",
    "l": "q", "L": "q", "f": "f", "d": "d", "T": "Q",
}  # fmt: skip
_INTEGERS = {"octet": "B", "short": "H", "long": "I", "longlong": "Q"}


def _as_bytes(value):
    return value if isinstance(value, bytes) else value.encode()


def encode_value(value):
    """One tagged table value; plain Python values get the tag most clients choose."""
    if not isinstance(value, Typed):
        value = _guess(value)
    tag, content = value
    out = tag.encode()
    if tag in _FIXED:
        return out + struct.pack(">" + _FIXED[tag], content)
    if tag == "t":
        return out + bytes([1 if content else 0])
    if tag == "V":
        return out
    if tag == "D":
        return out + struct.pack(">BI", *content)
    if tag in "Sx":
        data = _as_bytes(content)
        return out + struct.pack(">I", len(data)) + data
    if tag == "F":
        return out + encode_table(content)
    if tag == "A":
        data = b"".join(encode_value(item) for item in content)
        return out + struct.pack(">I", len(data)) + data
    raise ValueError(f"unknown table tag {tag!r}")


def _guess(value):
    if value is None:
        return Typed("V", None)
    if isinstance(value, bool):
        return Typed("t", value)
    if isinstance(value, int):
        return Typed("I" if -(2**31) <= value < 2**31 else "l", value)
    if isinstance(value, float):
        return Typed("d", value)
    if isinstance(value, dict):
        return Typed("F", value)
    if isinstance(value, list):
        return Typed("A", value)
    return Typed("S", value)


def encode_table(table):
    """A table with its length; a list of pairs may repeat a key."""
    pairs = table.items() if isinstance(table, dict) else table
    data = b"".join(encode_shortstr(key) + encode_value(value) for key, value in pairs)
    return struct.pack(">I", len(data)) + data


def encode_shortstr(text):
    data = _as_bytes(text)
    return bytes([len(data)]) + data


class Reader:
    """Reads typed values off a payload."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError("payload ends early")
        self.at += count
        return piece

    def unpack(self, form):
        values = struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))
        return values[0] if len(values) == 1 else values

    def shortstr(self):
        return self.take(self.unpack("B")).decode("utf-8", "backslashreplace")

    def longbytes(self):
        return self.take(self.unpack("I"))

    def table(self):
        inner, result = Reader(self.longbytes()), {}
        while inner.at < len(inner.data):
            key = inner.shortstr()
            result[key] = inner.value()
        return result

    def value(self):
        tag = self.take(1).decode("latin-1")
        if tag in _FIXED:
            return Typed(tag, self.unpack(_FIXED[tag]))
        if tag == "t":
            return Typed(tag, self.unpack("B") != 0)
        if tag == "V":
            return Typed(tag, None)
        if tag == "D":
            return Typed(tag, self.unpack("BI"))
        if tag == "S":
            return Typed(tag, self.longbytes().decode("utf-8", "backslashreplace"))
        if tag == "x":
            return Typed(tag, self.longbytes())
        if tag == "F":
            return Typed(tag, self.table())
        if tag == "A":
            inner, items = Reader(self.longbytes()), []
            while inner.at < len(inner.data):
                items.append(inner.value())
            return Typed(tag, items)
        raise ValueError(f"unknown table tag {tag!r}")

    def field(self, kind):
        if kind in _INTEGERS:
            return self.unpack(_INTEGERS[kind])
        if kind == "shortstr":
            return self.shortstr()
        if kind == "longstr":
            return self.longbytes().decode("utf-8", "backslashreplace")
        return self.table()


def _encode_fields(fields, values):
    """Fields in order; neighbouring bits share octets, low bit first."""
    out, bits = b"", []

    def flush():
        nonlocal out, bits
        for start in range(0, len(bits), 8):
            out += bytes([sum(1 << i for i, bit in enumerate(bits[start : start + 8]) if bit)])
        bits = []

    for name, kind in fields:
        value = values.get(name, values.get(name.lstrip("_")))
        if kind == "bit":
            bits.append(bool(value))
            continue
        flush()
        if kind in _INTEGERS:
            out += struct.pack(">" + _INTEGERS[kind], value or 0)
        elif kind == "shortstr":
            out += encode_shortstr(value or "")
        elif kind == "longstr":
            data = _as_bytes(value or "")
            out += struct.pack(">I", len(data)) + data
        else:
            out += encode_table(value or {})
    flush()
    return out


def _decode_fields(fields, reader):
    values, bits, used = {}, 0, 8
    for name, kind in fields:
        if kind == "bit":
            if used == 8:
                bits, used = reader.unpack("B"), 0
            values[name] = bool(bits >> used & 1)
            used += 1
        else:
            used = 8
            values[name] = reader.field(kind)
    return values


def frame(kind, channel, payload):
    """One whole frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([END])


def method(name, channel, **values):
    """A method frame; `routing_key=` stands for the field `routing-key`."""
    spec = BY_NAME[name]
    known = {f.name.lstrip("_") for f in spec.fields}
    values = {key.replace("_", "-"): value for key, value in values.items()}
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"{name} has no field {sorted(unknown)}")
    payload = struct.pack(">HH", spec.class_id, spec.method_id) + _encode_fields(spec.fields, values)
    return frame(METHOD, channel, payload)


def header(channel, size, class_id=60, **properties):
    """A content header frame."""
    given = {key.replace("_", "-"): value for key, value in properties.items()}
    unknown = set(given) - {f.name for f in PROPERTIES}
    if unknown:
        raise ValueError(f"no property {sorted(unknown)}")
    present = [f for f in PROPERTIES if f.name in given]
    flags = sum(1 << 15 - PROPERTIES.index(f) for f in present)
    payload = struct.pack(">HHQH", class_id, 0, size, flags) + _encode_fields(present, given)
    return frame(HEADER, channel, payload)


def body(channel, data):
    """A content body frame."""
    return frame(BODY, channel, _as_bytes(data))


def heartbeat():
    """A heartbeat frame."""
    return frame(HEARTBEAT, 0, b"")


def cut(buffer):
    """Takes one whole frame off the front of a bytearray, or returns None."""
    if len(buffer) < 7:
        return None
    kind, channel, size = struct.unpack_from(">BHI", buffer)
    if len(buffer) < size + 8:
        return None
    if buffer[7 + size] != END:
        raise ValueError("the broker sent a frame with a wrong end octet")
    payload = bytes(buffer[7 : 7 + size])
    del buffer[: size + 8]
    return Frame(kind, channel, payload)


def decode_method(payload):
    """(name, values) of a method frame's payload."""
    reader = Reader(payload)
    spec = BY_ID[reader.unpack("HH")]
    values = _decode_fields(spec.fields, reader)
    if reader.at != len(payload):
        raise ValueError(f"{spec.name} carries {len(payload) - reader.at} octets too many")
    return spec.name, values


def decode_header(payload):
    """(class_id, body size, properties) of a header frame's payload."""
    reader = Reader(payload)
    class_id, _weight, size, flags = reader.unpack("HHQH")
    present = [f for i, f in enumerate(PROPERTIES) if flags >> 15 - i & 1]
    return class_id, size, _decode_fields(present, reader)
