"""Golden transcripts: bytes in, bytes out. Where Mosquitto and RabbitMQ answer differently the specification's answer is here.

`CLOSED` is the end of the stream, `D/xx` a DISCONNECT with that reason (whatever it explains besides) and the end, `silence`
nothing before the answer to a PINGREQ.
"""

from rawmqtt import codec
from rawmqtt.client import Closed, Raw
from rawmqtt.codec import CONNACK, DISCONNECT, PINGRESP
from rules import V5, V31, V311, fresh, rule, same

# Sent after a CONNECT of that version with Clean Start, answered by exactly these packets.
PROBES = [
    ("SUBSCRIBE a/# QoS 1", V5, "82 09 0001 00 0003 612f23 01", ["9004 0001 00 01"]),
    ("SUBSCRIBE a/+ QoS 2", V5, "82 09 0002 00 0003 612f2b 02", ["9004 0002 00 02"]),
    ("SUBSCRIBE a/# QoS 1", V311, "82 08 0001 0003 612f23 01", ["9003 0001 01"]),
    ("SUBSCRIBE of three", V311, "82 0e 0003 0001 61 02 0001 62 00 0001 63 01", ["9005 0003 02 00 01"]),
    ("UNSUBSCRIBE unknown", V5, "a2 06 0007 00 0001 78", ["b004 0007 00 11"]),
    ("UNSUBSCRIBE unknown", V311, "a2 05 0007 0001 78", ["b002 0007"]),
    ("UNSUBSCRIBE unknown", V31, "a2 05 0007 0001 78", ["b002 0007"]),
    ("PINGREQ", V5, "c000", ["d000"]),
    ("PINGREQ", V31, "c000", ["d000"]),
    ("PUBACK unknown", V5, "4002 0009", "silence"),
    ("PUBACK unknown", V311, "4002 0009", "silence"),
    ("PUBREC unknown", V5, "5002 0009", ["6203 0009 92"]),
    ("PUBREC unknown", V311, "5002 0009", ["6202 0009"]),
    ("PUBREL unknown", V5, "6202 0009", ["7003 0009 92"]),
    ("PUBREL unknown", V311, "6202 0009", ["7002 0009"]),
    ("PUBCOMP unknown", V5, "7002 0009", "silence"),
    ("PUBLISH QoS 0 to nobody", V5, "30 05 0001 7a 00 78", "silence"),
    ("PUBLISH QoS 2 and PUBREL", V311, "34 06 0001 7a 0005 78  62 02 0005", ["5002 0005", "7002 0005"]),
    ("PUBLISH below $SYS", V5, "32 0c 0006 245359532f78 0001 00 78", ["P/87"]),
    ("PUBLISH below $SYS", V311, "32 0b 0006 245359532f78 0001 78", ["4002 0001"]),
    ("SUBSCRIBE a/#/b", V5, "82 0b 0001 00 0005 612f232f62 01", ["D/8f 81"]),
    ("SUBSCRIBE a/#/b", V311, "82 0a 0001 0005 612f232f62 01", ["CLOSED"]),
    ("SUBSCRIBE QoS 3", V5, "82 07 0001 00 0001 61 03", ["D/81 82"]),
    ("SUBSCRIBE QoS 3", V311, "82 06 0001 0001 61 03", ["CLOSED"]),
    ("SUBSCRIBE reserved option", V5, "82 07 0001 00 0001 61 40", ["D/81 82"]),
    ("SUBSCRIBE retain handling 3", V5, "82 07 0001 00 0001 61 30", ["D/82 81"]),
    ("SUBSCRIBE without a filter", V5, "82 03 0001 00", ["D/82 81"]),
    ("UNSUBSCRIBE without a filter", V5, "a2 03 0001 00", ["D/82 81"]),
    ("SUBSCRIBE packet id 0", V5, "82 07 0000 00 0001 61 01", ["D/82 81"]),
    ("SUBSCRIBE $share/g/t with No Local", V5, "82 10 0001 00 000a 2473686172652f672f74 05", ["D/82"]),
    ("PUBLISH with a wildcard", V5, "30 07 0003 612f23 00 78", ["D/90 81"]),
    ("PUBLISH with an empty topic", V5, "30 04 0000 00 78", ["D/82 81"]),
    ("PUBLISH with an empty topic", V311, "30 03 0000 78", ["CLOSED"]),
    ("PUBLISH QoS 3", V5, "36 07 0001 61 0001 00 78", ["D/81"]),
    ("PUBLISH packet id 0", V5, "32 07 0001 61 0000 00 78", ["D/82 81"]),
    ("PUBLISH alias 0", V5, "30 08 0001 61 03 230000 78", ["D/94 82"]),
    ("PUBLISH alias 65535", V5, "30 08 0001 61 03 23ffff 78", ["D/94", "silence"]),
    ("PUBLISH unknown alias", V5, "30 07 0000 03 230001 78", ["D/82"]),
    ("AUTH unasked", V5, "f0 0a 18 08 15 0005 4f54484552", ["D/82"]),
    ("DISCONNECT raising the expiry", V5, "e0 07 00 05 11 0000003c", ["D/82"]),
    ("packet type 0", V5, "0000", ["D/81 82"]),
    ("packet type 0", V311, "0000", ["CLOSED"]),
    ("a length of five bytes", V5, "30 8080808001", ["D/81"]),
    ("AUTH before 5", V311, "f000", ["CLOSED"]),
]  # fmt: skip

# A whole CONNECT and what comes before anything else.
CONNECTS = [
    ("v3.1.1", V311, codec.connect(V311, "golden4"), ["20020000"]),
    ("v3.1", V31, codec.connect(V31, "golden3"), ["20020000"]),
    ("v3.1.1, no id, no clean session", V311, codec.connect(V311, "", clean=False), ["20020002", "CLOSED"]),
    ("v5, unknown authentication method", V5, codec.connect(V5, "golden5", properties=[("authentication_method", "X")]), ["A/8c", "CLOSED"]),
    ("v3.1.1, wrong password", V311, codec.connect(V311, "golden4", user="guest", password="no"), ["20020004 20020005", "CLOSED"]),
    ("v5, wrong password", V5, codec.connect(V5, "golden5", user="guest", password="no"), ["A/86 87", "CLOSED"]),
    ("v5, keep alive 0", V5, codec.connect(V5, "golden5", keep_alive=0), ["A/00"]),
    ("v5, keep alive 65535", V5, codec.connect(V5, "golden5", keep_alive=65535), ["A/00"]),
    ("v5, session expiry without end", V5, codec.connect(V5, "golden5", properties=[("session_expiry", 0xFFFFFFFF)]), ["A/00"]),
    ("v5, an id of 300 bytes", V5, codec.connect(V5, "x" * 300), ["A/00"]),
    ("v3.1.1, an odd id", V311, codec.connect(V311, "a/b #+ é"), ["20020000"]),
    ("a first packet that is none of ours", V311, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ["CLOSED"]),
]  # fmt: skip


def _is(raw, wanted):
    """Whether the next thing that comes is as wanted; the end of the stream is told apart."""
    try:
        found = raw.packet()
    except Closed:
        return wanted == "CLOSED", "CLOSED"
    kind, _, codes = wanted.partition("/")
    reasons = [int(code, 16) for code in codes.split()]
    if kind == "D":
        fits = found.kind == DISCONNECT and found.reason in reasons
    elif kind == "A":
        fits = found.kind == CONNACK and found.reason in reasons
    elif kind == "P":
        fits = found.kind in (codec.PUBACK, codec.PUBREC) and found.reason in reasons
    else:
        fits = found.raw.hex() in wanted.split() or found.raw.hex() == wanted.replace(" ", "")
    return fits, found.raw.hex()


def _answers(raw, wanted):
    for one in wanted:
        fits, got = _is(raw, one)
        assert fits, f"got {got}, wanted {one}"
        if one.startswith("D/"):
            fits, got = _is(raw, "CLOSED")
            assert fits, f"got {got} after DISCONNECT"


def _probe(version, sent, wanted):
    with Raw(version) as raw:
        raw.send(codec.connect(version, fresh()))
        same(raw.expect(CONNACK).reason, 0)
        raw.send(bytes.fromhex(sent))
        if wanted == ["D/94", "silence"]:  # legal where the maximum announced is 65535
            wanted = "silence" if raw.seen[0].get("topic_alias_maximum") == 65535 else ["D/94"]
        if wanted == "silence":
            raw.send(codec.PING)
            raw.expect(PINGRESP)
        else:
            _answers(raw, wanted)


@rule(v3="3.8.4-2 3.10.4-4 3.9.3-2 4.8.0-1", v5="3.8.4-2 3.10.4-5 2.2.2-1 4.3.3-11 4.13.1-1", versions=(V31, V311, V5))
def golden_answers_to_packets(version):
    wrong = []
    for name, its, sent, wanted in PROBES:
        if its == version:
            try:
                _probe(version, sent, wanted)
            except Exception as problem:  # each probe gets its turn
                wrong.append(f"{name}: {problem}")
    assert not wrong, " | ".join(wrong)


@rule(v3="3.1.3-8 3.1.4-4 3.2.2-4 3.2.2-5 3.1.0-1", v5="4.12.0-1 3.1.4-2 3.1.4-5", versions=(V31, V311, V5))
def golden_answers_to_connect(version):
    wrong = []
    for name, its, sent, wanted in CONNECTS:
        if its == version:
            with Raw(version) as raw:
                raw.send(sent)
                try:
                    _answers(raw, wanted)
                except Exception as problem:
                    wrong.append(f"{name}: {problem}")
    assert not wrong, " | ".join(wrong)
