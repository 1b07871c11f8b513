"""Packets that break the rules: the connection ends, 5.0 is told the reason, the will is published, others go on."""

import struct
from pathlib import Path

from rawmqtt import codec
from rawmqtt.client import Closed, Raw
from rawmqtt.codec import (
    AUTH, CONNACK, DISCONNECT, PINGREQ, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBSCRIBE, UNSUBSCRIBE, Will, binary, packet,
)  # fmt: skip
from rules import ALL, V5, V31, V311, Client, fresh, rule, same

PACKETS = Path(__file__).resolve().parents[2] / "protocols/mqtt/tests/packets.txt"
SINCE_311 = (V311, V5)


def ends(version, data, codes=(0x81,), properties=()):
    """The packet ends the connection: with one of the codes in 5.0, in silence before. The will is published, and another
    connection notices nothing."""
    topic = fresh("w")
    with Client(version) as watcher, Client(version, will=Will(topic, b"ended"), properties=properties) as client:
        watcher.subscribe(topic)
        client.send(data)
        client.ended(codes)
        same(watcher.next().payload, b"ended")
        watcher.ping()


def pid(number=7):
    return struct.pack(">H", number)


def none(version):
    """An empty property block, where the version has one."""
    return b"\0" if version == V5 else b""


@rule(v3="2.2.2-1 2.2.2-2 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1 4.8.0-1", v5="2.1.3-1 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1 4.13.1-1", versions=SINCE_311)
def reserved_flags(version):
    filters = none(version) + binary("t") + b"\0"
    for data in (
        packet(PINGREQ, 1), packet(PUBACK, 2, pid()), packet(PUBREC, 1, pid()), packet(PUBREL, 0, pid()), packet(PUBREL, 3, pid()),
        packet(PUBCOMP, 8, pid()), packet(SUBSCRIBE, 0, pid(), filters), packet(UNSUBSCRIBE, 3, pid(), filters[:-1]),
        packet(DISCONNECT, 1),
    ):  # fmt: skip
        ends(version, data)


@rule(v5="3.15.1-1")
def reserved_flags_of_auth(version):
    ends(version, packet(AUTH, 1), (0x81, 0x82))


@rule(v3="2.3.1-1", v5="2.2.1-3", versions=ALL)
def packet_id_0(version):
    codes = (0x81, 0x82)
    ends(version, packet(PUBLISH, 2, binary("t"), pid(0), none(version), b"x"), codes)
    ends(version, packet(SUBSCRIBE, 2, pid(0), none(version), binary("t"), b"\0"), codes)
    ends(version, packet(UNSUBSCRIBE, 2, pid(0), none(version), binary("t")), codes)


@rule(v3="3.3.1-2", v5="3.3.1-2", versions=SINCE_311)
def dup_with_qos_0(version):
    ends(version, packet(PUBLISH, 8, binary("t"), none(version), b"x"), (0x81, 0x82))


@rule(v3="3.3.1-4", v5="3.3.1-4", versions=ALL)
def qos_3(version):
    ends(version, packet(PUBLISH, 6, binary("t"), pid(), none(version), b"x"), (0x81,))


@rule(v3="3.3.2-1 1.5.3-1 1.5.3-2 4.7.3-2", v5="3.3.2-1 1.5.4-1 1.5.4-2 4.7.3-2", versions=ALL)
def topics_that_are_not_text(version):
    for topic in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\0b", b"\xf4\x90\x80\x80"):
        ends(version, packet(PUBLISH, 0, binary(topic), none(version), b"x"), (0x81, 0x90))


@rule(v3="3.3.2-2 4.7.1-1", v5="3.3.2-2 4.7.0-1", versions=ALL)
def wildcards_in_topics(version):
    for topic in ("a/+", "#", "a/b#", "+"):
        ends(version, packet(PUBLISH, 0, binary(topic), none(version), b"x"), (0x81, 0x90))


@rule(v3="4.7.3-1", v5="4.7.3-1 3.3.2-1", versions=ALL)
def an_empty_topic(version):
    ends(version, packet(PUBLISH, 0, binary(""), none(version), b"x"), (0x81, 0x82, 0x90))
    ends(version, packet(SUBSCRIBE, 2, pid(), none(version), binary(""), b"\0"), (0x81, 0x82, 0x8F))


@rule(v3="4.7.3-3 3.1.3-1", v5="4.7.3-3", versions=ALL)
def fields_longer_than_their_packet(version):
    ends(version, packet(PUBLISH, 0, b"\0\x09ab"), (0x81,))
    ends(version, packet(SUBSCRIBE, 2, pid(), none(version), b"\0\x09ab"), (0x81,))


@rule(v3="3.8.3-1 3.10.3-1", v5="3.8.3-1 3.10.3-1", versions=ALL)
def filters_that_are_not_text(version):
    for text in (b"\xff", b"a\0"):
        ends(version, packet(SUBSCRIBE, 2, pid(), none(version), binary(text), b"\0"), (0x81, 0x8F))
        ends(version, packet(UNSUBSCRIBE, 2, pid(), none(version), binary(text)), (0x81, 0x8F))


@rule(v3="3.8.3-3 3.10.3-2", v5="3.8.3-2 3.10.3-2", versions=ALL)
def no_filter_at_all(version):
    ends(version, packet(SUBSCRIBE, 2, pid(), none(version)), (0x81, 0x82))
    ends(version, packet(UNSUBSCRIBE, 2, pid(), none(version)), (0x81, 0x82))


@rule(v3="3.8.3-4", versions=(V311,))
def options_before_5_are_a_qos(version):
    for options in (3, 4, 8, 0x10, 0x81):
        ends(version, packet(SUBSCRIBE, 2, pid(), binary("t"), bytes([options])))


@rule(v5="3.8.3-5")
def reserved_options(version):
    for options in (3, 0x30, 0x40, 0x80):
        ends(version, packet(SUBSCRIBE, 2, pid(), b"\0", binary("t"), bytes([options])), (0x81, 0x82))


def _refused_filter(version, text, codes, options=0):
    """A bad filter ends the connection, or (5.0) is refused in the SUBACK; both are legal."""
    with Client(version) as client:
        client.send(codec.subscribe(version, 7, [(text, options)]))
        try:
            answer = client.packet()
        except Closed:
            assert version != V5, "closed without a reason"
            return
        if version == V5 and answer.kind == DISCONNECT:
            assert answer.reason in codes, f"DISCONNECT {answer.reason:#04x} for {text}"
        else:
            assert answer.reasons in ((0x80,), (0x8F,)), f"{answer} for {text}"


@rule(v3="4.7.1-2 4.7.1-3", v5="4.7.1-1 4.7.1-2", versions=ALL)
def wildcards_in_the_wrong_place(version):
    for text in ("a#", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "#/a"):
        _refused_filter(version, text, (0x81, 0x82, 0x8F))


@rule(v5="4.8.2-1 4.8.2-2", versions=SINCE_311)
def shared_subscriptions_have_a_name_and_a_filter(version):
    for text in ("$share/g", "$share//t", "$share/g+/t", "$share/#/t", "$share/g/"):
        _refused_filter(version, text, (0x81, 0x82, 0x8F))


@rule(v5="3.8.3-4")
def no_local_on_a_shared_subscription(version):
    ends(version, codec.subscribe(version, 7, [("$share/g/t", codec.options(no_local=True))]), (0x82,))


@rule(v5="1.5.5-1", v3="4.8.0-1", versions=ALL)
def a_remaining_length_of_five_bytes(version):
    ends(version, bytes.fromhex("308080808001"), (0x81,))


@rule(v5="1.5.5-1")
def a_property_length_in_a_longer_form_than_needed(version):
    ends(version, packet(PUBLISH, 0, binary("t"), b"\x80\x00", b"x"), (0x81,))


@rule(v5="1.5.7-1 3.3.2-13 3.3.2-14 3.3.2-19")
def properties_that_are_not_text(version):
    for block in (b"\x26" + binary(b"\xff") + binary("v"), b"\x26" + binary("k") + binary(b"a\0"), b"\x03" + binary(b"\xff"), b"\x08" + binary(b"\xff")):
        ends(version, packet(PUBLISH, 0, binary("t"), codec.variable(len(block)), block, b"x"), (0x81, 0x82, 0x90))
    ends(version, codec.publish(version, "t", b"x", properties=[("response_topic", "a/#")]), (0x81, 0x82, 0x90))


@rule(v5="4.13.1-1")
def properties_in_the_wrong_place_or_twice(version):
    def sent(*blocks):
        block = b"".join(blocks)
        return packet(PUBLISH, 0, binary("t"), codec.variable(len(block)), block, b"x")

    ends(version, sent(b"\x11\0\0\0\x01"), (0x82, 0x81))  # session expiry in PUBLISH
    ends(version, sent(b"\x01\x00", b"\x01\x00"), (0x82, 0x81))  # payload format twice
    ends(version, sent(b"\x01\x02"), (0x82, 0x81))  # payload format 2
    ends(version, sent(b"\x63\x00"), (0x81,))  # no such property
    ends(version, packet(SUBSCRIBE, 2, pid(), b"\x02\x0b\x00", binary("t"), b"\0"), (0x82, 0x81))  # identifier 0


@rule(v5="3.3.4-6")
def a_subscription_identifier_from_a_client(version):
    ends(version, codec.publish(version, "t", b"x", properties=[("subscription_identifier", 1)]), (0x82,))


@rule(v5="3.3.2-8")
def a_topic_alias_of_0(version):
    ends(version, codec.publish(version, "t", b"x", properties=[("topic_alias", 0)]), (0x94, 0x82))


@rule(v5="3.3.2-9 3.2.2-17 3.2.2-18")
def a_topic_alias_beyond_the_maximum(version):
    most = Client(version).connack.get("topic_alias_maximum", 0)
    if most < 65535:
        ends(version, codec.publish(version, "t", b"x", properties=[("topic_alias", most + 1)]), (0x94,))


@rule(v5="3.3.2-12 3.3.2-7")
def a_topic_alias_nobody_set(version):
    ends(version, codec.publish(version, "", b"x", properties=[("topic_alias", 1)]), (0x82,))


@rule(v5="3.4.2-1 3.5.2-1 3.6.2-1 3.7.2-1")
def codes_that_the_packet_does_not_have(version):
    for kind, code in ((PUBACK, 0x55), (PUBACK, 0x92), (PUBREC, 0x01), (PUBREL, 0x80), (PUBCOMP, 0x10)):
        ends(version, codec.ack(version, kind, 7, code), (0x81, 0x82))


@rule(v5="3.14.2-1")
def a_disconnect_with_a_code_of_the_server(version):
    ends(version, packet(DISCONNECT, 0, b"\x55"), (0x81, 0x82))
    ends(version, packet(DISCONNECT, 0, b"\x8e"), (0x81, 0x82))


@rule(v5="3.15.2-1 4.12.0-2")
def an_auth_with_a_code_that_is_none(version):
    ends(version, packet(AUTH, 0, b"\x55\0"), (0x81, 0x82))


@rule(v3="4.8.0-1", v5="4.13.1-1", versions=SINCE_311)
def packets_that_only_servers_send(version):
    for data in (b"\x20\x02\0\0", b"\xd0\0", b"\0\0", b"\xb0\x02\0\x07", b"\x90\x03\0\x07\0"):
        ends(version, data, (0x81, 0x82))


@rule(v5="3.2.2-15")
def a_packet_beyond_the_servers_maximum(version):
    most = Client(version).connack.get("maximum_packet_size")
    if most and most <= 64 << 20:
        ends(version, bytes([PUBLISH << 4]) + codec.variable(most + 1) + binary("t") + b"\0" + b"x" * 1000, (0x95,))


@rule(v5="3.3.4-7")
def more_in_flight_than_the_server_takes(version):
    client = Client(version, manual=True)
    most = client.connack.get("receive_maximum", 65535)
    if most > 10_000:
        return  # more packet ids than there are in a check's patience
    # Of QoS 2 and never released, so each stays in flight.
    client.send(*(codec.publish(version, "t", b"x", 2, number) for number in range(1, most + 2)))
    client.ended((0x93,))


@rule(v5="3.3.2-4")
def a_payload_that_is_not_the_text_it_claims_to_be(version):
    client = Client(version)
    properties = [("payload_format", 1)]
    # Whether a server looks is left to it; it may not end the connection with another reason.
    client.send(codec.publish(version, fresh(), b"\xff\xfe", 1, 5, properties=properties))
    found = client.packet()
    assert found.reason in (0, 0x10, 0x99), found


def _rows():
    for line in PACKETS.read_text().splitlines():
        if line and not line.startswith("#"):
            sender, version, verdict, data, about = line.split(None, 4)
            yield sender, {"3.1": V31, "3.1.1": V311, "5": V5}[version], verdict, bytes.fromhex(data), about


def _bad(version, verdict, data):
    code = int(verdict, 16)
    if data[0] >> 4 != 1:
        # Before 5.0 there is no code; where 5.0 leaves a choice, both codes are right.
        near = {0x81: (0x81, 0x82), 0x82: (0x82, 0x81), 0x90: (0x90, 0x81), 0x8F: (0x8F, 0x81), 0x94: (0x94, 0x82)}
        return ends(version, data, near.get(code, (code,)))
    with Raw(version) as raw:
        raw.send(data)
        try:
            answer = raw.expect(CONNACK)
        except Closed:
            assert version != V5 and code != 0x85, "closed without CONNACK"
            return None
        wanted = (code,) if version == V5 else {0x84: (1,), 0x85: (2,)}.get(code, ())
        assert answer.reason in wanted, f"CONNACK {answer.reason:#04x}"
        same(answer.present, 0)
        raw.ended()
    return None


def _good(version, data):
    kind = data[0] >> 4
    if kind == 1:
        with Raw(version) as raw:
            raw.send(data)
            answer = raw.packet()
            assert answer.kind in (CONNACK, AUTH) and answer.reason not in (0x81, 0x82), answer
        return
    with Client(version) as client:
        client.send(data)
        if kind == DISCONNECT:
            client.ended()
        elif kind == AUTH:
            client.ended((0x82,))  # well-formed, but this connection authenticates with nothing
        elif b"\x23\x00\x03" in data:
            client.ended((0x82, 0x94))  # an alias that nobody has set
        else:
            client.ping()


@rule(v3="4.8.0-1", v5="4.13.1-1", versions=ALL)
def every_packet_of_the_codecs_table(version):
    wrong = []
    for sender, number, verdict, data, about in _rows():
        if number != version or sender != "client":
            continue
        try:
            _good(version, data) if verdict == "ok" else _bad(version, verdict, data)
        except Exception as problem:  # each packet gets its turn
            wrong.append(f"{about}: {problem}")
    assert not wrong, " | ".join(wrong)
