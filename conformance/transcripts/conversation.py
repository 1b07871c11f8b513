"""The transcript language: reads conversations and shows frames in the same words.

    given NAME                  top level: a named preparation, spoken by `guest` on a connection of its own
    case NAME                   one conversation on a fresh connection with channel 1 open
      given NAME                speak that preparation first; its connection stays open until the case ends
      as USER                   log in as USER, whose password is USER
      tune channel-max=2        answer connection.tune with these values
      no channel                do not open channel 1
      bare                      do not even speak the handshake
      > METHOD channel=1 a=b c  send a method: fields by name, bits by mention, everything else zero or empty
      > header channel=1 size=3 message-id=m
      > body channel=1 data="abc"       or zeros=N: N zero octets in as many frames as that takes
      > heartbeat               or: > frame type=9 channel=0 payload="abc", or: > bytes 01 00 ff
      < METHOD channel=1 ...    wait for exactly this frame; a field that is not named is zero or empty
      < closed                  wait until the broker closes the TCP connection, whether by FIN or reset
      < nothing                 no frame comes for a moment
      end                       the conversation is over here; what follows is not spoken

A field table is {key=I:1, other=S:"text", list=A:[t:true], nested=F:{}}, the letter being the wire tag.
`field=*` accepts any value. Generated names are read as `amq.gen-*` and `amq.ctag-*`.
"""

import re
import sys
from collections import namedtuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rawamqp import codec, methods  # noqa: E402

Line = namedtuple("Line", "number text")


class Case:
    """A named list of lines; `full_name` is file/name."""

    def __init__(self, section, name):
        self.section, self.name, self.lines = section, name, []

    @property
    def full_name(self):
        return f"{self.section}/{self.name}"


class BadTranscript(Exception):
    """The transcript itself is not well formed."""


def load(path, givens):
    """The cases of one file; its givens are added to `givens`."""
    cases, current = [], None
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        if not raw.startswith(" "):
            kind, _, name = text.partition(" ")
            current = Case(path.stem, name)
            if kind == "given":
                givens[name] = current
            elif kind == "case":
                cases.append(current)
            else:
                raise BadTranscript(f"{path.name}:{number}: expected `case` or `given`")
        else:
            current.lines.append(Line(number, text))
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise BadTranscript(f"{path.name}: two cases are called {name!r}")
    return cases


# --- words to values ---------------------------------------------------------------------------

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],=:]|[^\s{}\[\],=:"]+|\s+')


class _Words:
    """Cuts a line into words, punctuation and quoted strings."""

    def __init__(self, text):
        self.words = _TOKEN.findall(text)
        if "".join(self.words) != text:
            raise BadTranscript(f"cannot read {text!r}")

    def peek(self):
        return self.words[0] if self.words else ""

    def next(self, wanted=None):
        if not self.words or (wanted and self.words[0] != wanted):
            raise BadTranscript(f"expected {wanted or 'a word'} before {''.join(self.words)!r}")
        return self.words.pop(0)

    def space(self):
        while self.peek().isspace() and self.words:
            self.words.pop(0)

    def bare(self):
        """Everything up to white space or closing punctuation, so `a.b` and `<x>` are one value."""
        out = ""
        while self.words and not self.peek().isspace() and self.peek() not in ",}]":
            out += self.next()
        return out


def unquote(word):
    """The bytes of a quoted or bare word; `\\xff` is one octet."""
    if not word.startswith('"'):
        return word.encode()
    plain = {"n": b"\n", "r": b"\r", "t": b"\t", '"': b'"', "\\": b"\\"}
    out, at = b"", 1
    while at < len(word) - 1:
        if word[at] != "\\":
            out += word[at].encode()
            at += 1
        elif word[at + 1] == "x":
            out += bytes.fromhex(word[at + 2 : at + 4])
            at += 4
        else:
            out += plain[word[at + 1]]
            at += 2
    return out


def _table(words):
    pairs = []
    words.next("{")
    words.space()
    while words.peek() != "}":
        key = unquote(words.next())
        words.next("=")
        pairs.append((key, _typed(words)))
        words.space()
        if words.peek() == ",":
            words.next()
            words.space()
    words.next("}")
    return pairs


def _typed(words):
    tag = words.next()
    words.next(":")
    if tag == "F":
        return codec.Typed(tag, _table(words))
    if tag == "A":
        items = []
        words.next("[")
        words.space()
        while words.peek() != "]":
            items.append(_typed(words))
            words.space()
            if words.peek() == ",":
                words.next()
                words.space()
        words.next("]")
        return codec.Typed(tag, items)
    if tag == "V":
        return codec.Typed(tag, None)
    word = words.next() if words.peek().startswith('"') else words.bare()
    if tag in "Sx":
        return codec.Typed(tag, unquote(word))
    if tag == "t":
        return codec.Typed(tag, word == "true")
    return codec.Typed(tag, float(word) if tag in "fd" else int(word))


def fields(text):
    """`a=b c d={…}` as a dict of words, True and tables."""
    words, found = _Words(text), {}
    words.space()
    while words.words:
        key = words.next()
        if words.peek() == "=":
            words.next()
            if words.peek() == "{":
                found[key] = _table(words)
            else:
                found[key] = words.next() if words.peek().startswith('"') else words.bare()
        else:
            found[key] = True
        words.space()
    return found


def _kind_value(kind, word):
    if kind == "bit":
        return word is True or word == "true"
    if kind in ("octet", "short", "long", "longlong"):
        return int(word)
    if kind == "table":
        return word
    return unquote(word)


def _parsed(name, text):
    """(kind, name, channel, values) of a described frame, values as on the wire."""
    given = fields(text)
    channel = int(given.pop("channel", 0))
    if name == "header":
        spec = list(methods.PROPERTIES) + [methods.Field("size", "longlong"), methods.Field("class", "short")]
    elif name == "body":
        spec = [methods.Field("data", "longstr"), methods.Field("zeros", "longlong")]
    elif name in methods.BY_NAME:
        spec = methods.BY_NAME[name].fields
    else:
        raise BadTranscript(f"there is no {name}")
    kinds = {f.name.lstrip("_"): f.kind for f in spec}
    values = {}
    for key, word in given.items():
        if key not in kinds:
            raise BadTranscript(f"{name} has no field {key}")
        values[key] = word if word == "*" else _kind_value(kinds[key], word)
    return channel, values


_BODY_MAX = 131072 - 8  # what fits a frame of the usual frame-max


def encode(text):
    """The bytes of one `>` line."""
    name, _, rest = text.partition(" ")
    if name == "bytes":
        return bytes.fromhex(rest)
    if name == "heartbeat":
        return codec.heartbeat()
    if name == "frame":
        given = fields(rest)
        return codec.frame(int(given["type"]), int(given["channel"]), unquote(given.get("payload", "")))
    channel, values = _parsed(name, rest)
    if name == "body" and "zeros" in values:
        parts = range(0, values["zeros"], _BODY_MAX)
        return b"".join(codec.body(channel, bytes(min(_BODY_MAX, values["zeros"] - at))) for at in parts)
    if name == "body":
        return codec.body(channel, values["data"])
    named = {key.replace("-", "_"): value for key, value in values.items()}
    if name == "header":
        return codec.header(channel, named.pop("size"), class_id=named.pop("class", 60), **named)
    return codec.method(name, channel, **named)


# --- frames to words ---------------------------------------------------------------------------

_GENERATED = re.compile(r"amq\.(gen|ctag)-[A-Za-z0-9_-]{22}")


def show_frame(frame):
    """A received frame in the words of a `<` line, with nothing that is zero or empty."""
    if frame.kind == codec.METHOD:
        name, values = codec.decode_method(frame.payload)
    elif frame.kind == codec.HEADER:
        name = "header"
        class_id, size, properties = codec.decode_header(frame.payload)
        values = {"size": size, **({} if class_id == 60 else {"class": class_id}), **properties}
    elif frame.kind == codec.BODY:
        name, values = "body", {"data": frame.payload.decode("utf-8", "backslashreplace")}
    else:
        name, values = "frame", {"type": frame.kind, "payload": repr(frame.payload)}
    return _show(name, frame.channel, values)


def canonical(text):
    """A `<` line of a transcript in the very form `show_frame` produces."""
    name, _, rest = text.partition(" ")
    channel, values = _parsed(name, rest)
    return _show(name, channel, values)


def _show(name, channel, values):
    parts = [name] + ([f"channel={channel}"] if channel else [])
    for key in sorted(values):
        value = values[key]
        if not value or key.startswith("_"):
            continue
        parts.append(key if value is True else f"{key}={_show_plain(value)}")
    return _GENERATED.sub(r"amq.\1-*", " ".join(parts))


def _show_plain(value):
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else value
        shown = (f"{_show_plain(key)}={show_typed(v)}" for key, v in sorted(pairs, key=lambda p: str(p[0])))
        return "{" + ", ".join(shown) + "}"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str) and not re.fullmatch(r"[\w.\-/*:#]+", value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value)


def show_typed(value):
    """A field-table value with its tag."""
    if value.tag == "A":
        return "A:[" + ", ".join(show_typed(item) for item in value.value) + "]"
    if value.tag == "V":
        return "V:"
    if value.tag == "t":
        return f"t:{str(value.value).lower()}"
    return f"{value.tag}:{_show_plain(value.value)}"


def matches(expected, shown):
    """Whether a received frame answers a canonical expected line; `=*` stands for any value."""
    if "=*" not in expected:
        return expected == shown
    pattern = re.escape(expected).replace(r"=\*", r'=(?:"(?:[^"\\]|\\.)*"|\{.*\}|\S+)')
    return re.fullmatch(pattern, shown) is not None
