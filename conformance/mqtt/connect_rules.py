"""CONNECT and CONNACK: who is let in, as whom, and what both are told."""

import os
import struct

from rawmqtt import codec
from rawmqtt.client import Closed, Raw
from rawmqtt.codec import CONNACK, DISCONNECT, PINGRESP, Will
from rules import ALL, V5, V31, V311, Client, fresh, lasting, rule, same


def refused(version, data, codes):
    """The server answers the CONNECT with one of the codes (None: nothing at all), says session present 0, and closes."""
    with Raw(version) as raw:
        raw.send(data)
        try:
            answer = raw.expect(CONNACK)
        except Closed:
            assert None in codes, f"closed without CONNACK, wanted {codes}"
            return
        assert answer.reason in codes, f"CONNACK {answer.reason:#04x}, wanted {codes}"
        same(answer.present, 0, "session present")
        raw.ended()


def connect_with(version, flags, *fields, name=None, level=None):
    """A CONNECT of our own making: the flags byte and the fields as given."""
    head = codec.binary(name or ("MQIsdp" if version == V31 else "MQTT")) + bytes([level or version, flags]) + struct.pack(">H", 60)
    return codec.packet(codec.CONNECT, 0, head, b"\0" if version == V5 else b"", *fields)


def malformed(version):
    """What a malformed CONNECT is answered: before 5.0 nothing, after it 0x81 or 0x82 or nothing."""
    return (0x81, 0x82, None) if version == V5 else (None,)


@rule(v3="3.1.0-1", v5="3.1.0-1 3.14.0-1")
def what_comes_before_connect_is_not_answered(version):
    for data in (codec.PING, codec.publish(version, "t", b"x"), codec.subscribe(version, 1, [("t", 0)]), codec.disconnect(version)):
        with Raw(version) as raw:
            raw.send(data)
            raw.ended()
            same(raw.seen, [], "packets before the end")


@rule(v3="3.1.0-2", v5="3.1.0-2 4.13.1-1")
def a_second_connect_ends_the_connection_and_fires_the_will(version):
    topic = fresh("w")
    watcher = Client(version)
    watcher.subscribe(topic)
    twice = Client(version, will=Will(topic, b"twice"))
    twice.send(codec.connect(version, twice.client_id))
    twice.ended((0x82,))
    same(watcher.next().payload, b"twice")


@rule(v3="3.1.2-1", v5="3.1.2-1")
def another_protocol_is_not_let_in(version):
    refused(version, connect_with(version, 2, codec.binary("c"), name="MQTQ"), (0x84, 1, None))
    refused(version, connect_with(version, 2, codec.binary("c"), name="mqtt"), (0x84, 1, None))


@rule(v3="3.1.2-2", v5="3.1.2-2", versions=(V5,))
def an_unknown_level_is_refused_and_told(version):
    with Raw(V5) as raw:
        raw.send(connect_with(V5, 2, codec.binary("c"), level=6))
        got = b""
        while more := raw.socket.recv(1000):
            got += more
    # Whether the answer is one of 3.1.1 or one of 5.0 is free; that it comes is not.
    assert got == b"\x20\x02\x00\x01" or (got[:1] + got[2:4] == b"\x20\x00\x84" and len(got) == got[1] + 2), got.hex()


@rule(v3="3.1.2-3", v5="3.1.2-3", versions=(V311, V5))
def the_reserved_connect_flag_is_0(version):
    refused(version, connect_with(version, 3, codec.binary(fresh())), malformed(version))


@rule(v3="3.1.2-9 3.1.2-11 3.1.2-13 3.1.2-14 3.1.2-15 3.1.3-1 3.1.3-10 3.1.4-1",
      v5="3.1.2-9 3.1.2-11 3.1.2-12 3.1.2-13 3.1.3-1 3.1.3-11 3.1.4-1", versions=(V311, V5))  # fmt: skip
def a_will_is_whole_or_not_there(version):
    block = b"\0" if version == V5 else b""
    cid, topic, payload = codec.binary(fresh()), block + codec.binary("t"), codec.binary("p")
    for flags, fields in [
        (0x06, [cid]), (0x06, [cid, topic]),  # a will without its fields
        (0x0A, [cid]), (0x12, [cid]), (0x22, [cid]),  # QoS or retain without a will
        (0x1E, [cid, topic, payload]),  # QoS 3
        (0x06, [cid, block + codec.binary(b"\xff"), payload]), (0x06, [cid, block + codec.binary(b"a\0b"), payload]),
    ]:  # fmt: skip
        refused(version, connect_with(version, flags, *fields), malformed(version) + ((0x90,) if version == V5 else ()))


@rule(v3="3.1.2-18 3.1.2-19 3.1.2-20 3.1.2-21 3.1.3-3 3.1.3-4 3.1.3-11 1.5.3-1 1.5.3-2",
      v5="3.1.2-16 3.1.2-17 3.1.2-18 3.1.2-19 3.1.3-3 3.1.3-4 3.1.3-12 1.5.4-1 1.5.4-2", versions=(V311, V5))  # fmt: skip
def fields_are_there_as_the_flags_say_and_are_utf_8(version):
    cid, text = codec.binary(fresh()), codec.binary("guest")
    more = (0x85, 0x86, 0x87) if version == V5 else (2, 4, 5)
    for flags, fields in [
        (0x02, []), (0x02, [cid, text]), (0x82, [cid]), (0xC2, [cid, text]), (0x82, [cid, text, text]),
        (0x02, [codec.binary(b"\xed\xa0\x80")]), (0x02, [codec.binary(b"a\0")]), (0x02, [codec.binary(b"\xc0\xaf")]),
        (0x82, [cid, codec.binary(b"\xff")]), (0x82, [cid, codec.binary(b"u\0")]),
    ]:  # fmt: skip
        refused(version, connect_with(version, flags, *fields), malformed(version) + more)


@rule(v3="3.1.2-22", versions=(V311,))
def a_password_needs_a_user_name_before_5(version):
    refused(version, connect_with(version, 0x42, codec.binary(fresh()), codec.binary("x")), (None,))


@rule(v3="3.1.3-5 3.1.4-4 3.2.0-1 3.2.2-1", v5="3.1.3-5 3.1.4-5 3.2.0-1 3.2.0-2 3.2.2-1 3.2.2-2")
def client_ids_of_every_legal_form_are_let_in(version):
    for client_id in ("abc"[version - 3], f"0123456789abcdefghijkl{version}", fresh("A") + "z"):
        client = Client(version, client_id)
        same(client.present, False)
        client.ping()
        same(client.seen[0].kind, CONNACK)
        same([packet.kind for packet in client.seen].count(CONNACK), 1)
        client.leave()


@rule(v3="3.1.3-2 1.5.3-3", v5="3.1.3-2 1.5.4-3")
def a_client_id_is_its_bytes(version):
    # A byte order mark and what looks alike make other clients.
    if version == V31:
        return
    name = fresh("ö")
    with lasting(version, name), lasting(version, "\ufeff" + name) as other, lasting(version, name + "\u0308") as third:
        same((other.present, third.present), (False, False))
    for client_id in (name, "\ufeff" + name, name + "\u0308"):
        back = lasting(version, client_id)
        same(back.present, True, client_id)
        Client(version, client_id).leave()


@rule(v3="3.1.3-6 3.1.3-7", v5="3.1.3-6 3.1.3-7 3.2.2-16", versions=(V311, V5))
def without_a_client_id_the_server_makes_one(version):
    clients = [Client(version, "") for _ in range(3)]
    for client in clients:
        client.ping()
    if version == V5:
        names = [client.connack.get("assigned_client_id") for client in clients]
        assert all(names) and len(set(names)) == 3, names
        assert Client(version, "given" + fresh()).connack.get("assigned_client_id") is None


@rule(v3="3.1.3-8 3.1.3-9 3.2.2-4 3.2.2-5", versions=(V311,))
def no_client_id_and_no_clean_session_is_refused(version):
    refused(version, codec.connect(version, "", clean=False), (2,))


@rule(v5="3.1.3-6")
def in_5_no_client_id_goes_with_a_session(version):
    first = Client(version, "", clean=False, properties=[("session_expiry", 60)])
    name = first.connack.get("assigned_client_id")
    first.drop()
    again = lasting(version, name)
    same(again.present, True)
    Client(version, name).leave()


@rule(v5="3.1.4-6 3.1.3-8 3.2.2-6 3.2.2-7 3.2.2-8", v3="3.1.4-5")
def after_a_refusal_nothing_is_read(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    with Raw(version) as raw:
        raw.send(codec.connect(version, fresh(), user="nobody", password="wrong"), codec.publish(version, topic, b"sneaked in"))
        answer = raw.expect(CONNACK)
        same(answer.present, 0)
        assert answer.reason in ((0x86, 0x87) if version == V5 else (4, 5)), answer.reason
        raw.ended()
    watcher.nothing()


@rule(v3="3.2.2-6", v5="3.1.4-2", versions=ALL)
def name_and_password_decide(version):
    Client(version, user="guest", password="guest").leave()
    wrong = (0x86, 0x87) if version == V5 else (4, 5)
    for user, password in (("guest", "wrong"), ("guest", ""), ("nobody", "guest"), ("guest", None)):
        refused(version, codec.connect(version, fresh(), user=user, password=password), wrong)


@rule(v5="3.1.2-18", versions=(V5,))
def a_password_alone_is_judged_and_not_malformed(version):
    refused(version, codec.connect(version, fresh(), password="token"), (0x86, 0x87))


@rule(versions=ALL)
def a_vhost_before_the_user_name_is_another_namespace(version):
    topic = fresh()
    here = Client(version, user="/:guest", password="guest")
    here.subscribe(topic)
    Client(version, user="guest", password="guest").publish(topic, b"same vhost", qos=1)
    same(here.next().payload, b"same vhost")
    wrong = (0x86, 0x87) if version == V5 else (4, 5)
    refused(version, codec.connect(version, fresh(), user="no-such-vhost:guest", password="guest"), wrong)


@rule(versions=ALL)
def anonymous_is_let_in_from_loopback(version):
    Client(version).leave()


@rule(v3="7.1.1-1", v5="4.2-1", versions=ALL)
def packets_may_come_byte_by_byte_or_many_at_once(version):
    topic = fresh()
    with Raw(version) as raw:
        for byte in codec.connect(version, fresh()):
            raw.send(bytes([byte]))
        same(raw.expect(CONNACK).reason, 0)
        many = [codec.publish(version, topic, str(n).encode()) for n in range(50)]
        raw.send(codec.subscribe(version, 1, [(topic, 0)]), *many, codec.PING)
        kinds = []
        while PINGRESP not in kinds:
            kinds.append(raw.packet().kind)
        same(kinds.count(codec.PUBLISH), 50)


@rule(v3="3.12.4-1", v5="3.12.4-1")
def pingreq_is_answered(version):
    client = Client(version)
    for _ in range(3):
        client.ping()


@rule(v3="3.1.2-24 3.1.2-23", v5="3.1.2-22 3.1.2-20")
def silence_beyond_one_and_a_half_keep_alives_ends_the_connection(version):
    topic = fresh("w")
    watcher = Client(version)
    watcher.subscribe(topic)
    silent = Client(version, keep_alive=1, will=Will(topic, b"silent"))
    silent.ended((0x8D,))
    same(watcher.next().payload, b"silent")


@rule(v3="3.1.2-23", v5="3.1.2-20 3.2.2-22", versions=ALL)
def who_says_something_in_time_stays(version):
    import time

    client = Client(version, keep_alive=2)
    for _ in range(4):
        time.sleep(1)
        client.publish(fresh(), b"alive")
    client.ping()
    other = Client(version, keep_alive=0)
    other.ping()


@rule(v5="3.2.2-22 3.2.2-21 3.1.2-21")
def a_server_keep_alive_is_one_that_may_be_obeyed(version):
    given = Client(version, keep_alive=60).connack.get("server_keep_alive")
    assert given is None or 0 < given <= 60, given


@rule(v3="3.1.4-2 3.1.4-3", v5="3.1.4-3 3.1.4-4 4.13.2-1")
def a_newcomer_takes_over_its_client_id(version):
    topic = fresh("w")
    watcher = Client(version)
    watcher.subscribe(topic)
    old = Client(version, will=Will(topic, b"taken over"))
    new = Client(version, old.client_id)
    old.ended((0x8E,))
    same(new.present, False)
    new.ping()
    same(watcher.next().payload, b"taken over")


@rule(versions=ALL)
def of_many_racing_takeovers_one_stays(version):
    import threading

    name, alive, clients = fresh(), [], []

    def one():
        clients.append(Client(version, name))

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = Client(version, name)
    for client in clients:
        client.ended((0x8E,))
    last.ping()
    alive.append(last)
    same(len(alive), 1)


@rule(v5="3.1.2-28")
def response_information_is_sent_only_if_asked(version):
    same(Client(version).connack.get("response_information"), None)
    same(Client(version, properties=[("request_response", 0)]).connack.get("response_information"), None)


@rule(v5="3.2.2-9 3.2.2-10 3.2.2-12 3.2.2-13 3.2.2-14 3.2.2-11")
def what_is_not_said_to_be_missing_is_there(version):
    client = Client(version)
    for name, otherwise in (("maximum_qos", 2), ("retain_available", 1), ("wildcard_available", 1), ("identifiers_available", 1), ("shared_available", 1)):
        same(client.connack.get(name, otherwise), otherwise, name)
    assert client.connack.get("receive_maximum", 65535) > 0
    topic = fresh("w")
    will = Will(topic, b"full", 2, True)
    Client(version, will=will).drop()
    client.subscribe(topic, qos=2)
    got = client.next()
    same((got.payload, got.qos), (b"full", 2))
    client.publish(topic, b"", retain=True)


@rule(v5="3.2.2-19 3.2.2-20 3.1.2-24")
def a_connack_fits_into_the_clients_maximum(version):
    with Raw(version) as raw:
        raw.send(codec.connect(version, fresh(), user="nobody", password="wrong", properties=[("maximum_packet_size", 24)]))
        try:
            assert len(raw.expect(CONNACK).raw) <= 24
        except Closed:
            pass


@rule(v5="3.1.2-29")
def without_problem_information_acks_say_nothing_more(version):
    client = Client(version, properties=[("request_problem", 0)])
    client.send(codec.publish(version, "$SYS/broker/version", b"x", 1, client.number()))
    answer = client.wait(codec.PUBACK)
    same((answer.get("reason_string"), answer.all("user")), (None, []))
    gone = client.unsubscribe(fresh())
    same((gone.get("reason_string"), gone.all("user")), (None, []))


@rule(v5="4.12.0-1")
def an_unknown_authentication_method_is_refused(version):
    refused(version, codec.connect(version, fresh(), properties=[("authentication_method", "GUESS")]), (0x8C,))


@rule(v5="4.12.0-6 4.12.0-7")
def auth_without_a_method_is_a_protocol_error(version):
    client = Client(version)
    same(client.connack.get("authentication_method"), None)
    client.send(codec.auth(0x18, [("authentication_method", "SCRAM-SHA-256")]))
    client.ended((0x82,))


@rule(v3="3.14.1-1 3.14.4-1 3.14.4-2", v5="3.14.4-1 3.14.4-2")
def nothing_counts_after_disconnect(version):
    topic = fresh()
    watcher = Client(version)
    watcher.subscribe(topic)
    client = Client(version)
    client.send(codec.disconnect(version), codec.publish(version, topic, b"late"))
    client.ended()
    watcher.nothing()


@rule(versions=(V5,))
def after_two_hundred_dropped_connections_the_next_is_served(version):
    for _ in range(200):
        Client(version).drop()
    Client(version).leave()


@rule(versions=(V31, V311))
def the_level_of_a_bridge_is_that_of_a_client(version):
    with Raw(version) as raw:
        raw.send(codec.connect(version, fresh(), level=version | 0x80))
        same(raw.expect(CONNACK).reason, 0)


@rule(versions=ALL)
def a_connection_that_says_nothing_is_closed_in_the_end(version):
    if "MQTT_CONNECT_SECONDS" not in os.environ:
        return  # the suite does not know how long the broker waits
    with Raw(version) as raw:
        raw.ended(deadline=float(os.environ["MQTT_CONNECT_SECONDS"]) + 20)


@rule(v5="3.14.2-2 3.14.2-1")
def a_disconnect_of_the_server_has_a_code_of_its_own(version):
    old = Client(version, properties=[("session_expiry", 60)])
    Client(version, old.client_id).leave()
    found = old.expect(DISCONNECT)
    same((found.reason, found.get("session_expiry")), (0x8E, None))
