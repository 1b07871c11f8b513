#!/usr/bin/env python3
"""Peers that are broken, malicious or merely rude; after each the broker must serve a healthy client in bounded memory."""

import os
import random
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rawamqp import codec  # noqa: E402
from rawamqp.client import CAPABILITIES, Closed, Connection  # noqa: E402

HOST, PORT = os.environ.get("BROKER_HOST", "127.0.0.1"), int(os.environ.get("BROKER_PORT", "5672"))
# Other brokers answer a few of these less helpfully, and bound their memory by a share of the machine's.
OURS = os.environ.get("BROKER_NAME", "portolan") == "portolan"
# What the worst of these may leave behind, above the memory in use when the suite began.
MAY_GROW = 200 << 20 if OURS else 2 << 30
_checks = []


def check(function):
    """Registers a check."""
    _checks.append(function)
    return function


def connect(**options):
    return Connection(HOST, PORT, **options)


def broker_pid():
    """The broker's process id, or 0 where nobody knows it."""
    if "BROKER_CONTROL" not in os.environ:
        return 0
    host, _, port = os.environ["BROKER_CONTROL"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(b"pid\n")
        return int(stream.makefile().readline())


def resident(pid):
    """Resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def healthy():
    """A well-behaved client gets its message through, persistent and confirmed."""
    with connect(timeout=10) as client:
        client.login()
        client.open()
        client.call("confirm.select")
        queue = client.call("queue.declare", durable=True, exclusive=True)["queue"]
        client.publish(b"alive", routing_key=queue, delivery_mode=2)
        client.expect("basic.ack")
        client.call("basic.get", queue=queue, no_ack=True)
        client.frame()
        assert client.frame().payload == b"alive"
        client.close()


def hung_up(peer, seconds=30):
    """Waits until the broker closes the connection, reading away what it still says."""
    try:
        while True:
            peer.frame(seconds)
    except (Closed, ValueError):
        return
    except TimeoutError:
        raise AssertionError(f"still connected after {seconds} s") from None


def at_once(action, count):
    """Runs action(i) for each i, many side by side: some brokers wait seconds before they hang up."""
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(action, range(count)))


@check
def garbage_instead_of_a_protocol_header():
    def one(i):
        rng = random.Random(i)
        with connect() as peer:
            peer.send(rng.randbytes(rng.randint(8, 4096)))
            hung_up(peer)

    at_once(one, 200)


@check
def other_protocols_on_this_port():
    for first in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
                  b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"AMQP\x00\x02\x00\x00", b"AMQP\x09\x09\x09\x09"):  # fmt: skip
        with connect() as peer:
            peer.send(first)
            hung_up(peer)


@check
def unknown_amqp_version_is_told_ours():
    with connect() as peer:
        peer.send(b"AMQP\x00\x00\x05\x05")
        peer.socket.settimeout(20)
        assert peer.socket.recv(8) == codec.PROTOCOL_HEADER


@check
def garbage_after_the_handshake():
    def one(i):
        rng = random.Random(i)
        with connect() as peer:
            peer.login()
            peer.send(rng.randbytes(rng.randint(8, 4096)))
            # It may look like the start of a frame whose rest never comes; then hanging up is ours to do.
            peer.finish()
            hung_up(peer)

    at_once(one, 200)


@check
def mutated_frames():
    valid = [
        codec.method("queue.declare", 1, queue="m", arguments={"x-max-length": 5, "t": {"a": [1, 2, None]}}),
        codec.method("basic.publish", 1, routing_key="m") + codec.header(1, 3, headers={"a": "b"}, priority=3) + codec.body(1, b"abc"),
        codec.method("basic.consume", 1, queue="m", arguments={"x-priority": 1}),
        codec.method("exchange.declare", 1, exchange="mx", type="topic"),
        codec.method("queue.bind", 1, queue="m", exchange="amq.topic", routing_key="#.*"),
        codec.method("basic.ack", 1, delivery=1, multiple=True),
    ]

    def one(i):
        rng = random.Random(i)
        data = bytearray(rng.choice(valid))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with connect() as peer:
            peer.login()
            peer.open()
            peer.send(bytes(data))
            peer.finish()
            hung_up(peer)

    at_once(one, 500)
    with connect() as peer:
        peer.login()
        peer.open()
        peer.call("queue.delete", queue="m")
        peer.close()


@check
def half_handshakes_dropped():
    whole = codec.PROTOCOL_HEADER + codec.method(
        "connection.start-ok", 0, client_properties={"capabilities": CAPABILITIES}, mechanism="PLAIN", response="\0guest\0guest", locale="en_US"
    )
    for cut in list(range(1, len(whole), 3)):
        with connect() as peer:
            peer.send(whole[:cut])


@check
def half_handshakes_left_open_are_ended():
    peers = []
    for start in (b"", b"AM", codec.PROTOCOL_HEADER, codec.PROTOCOL_HEADER + b"\x01\x00\x00"):
        for _ in range(25):
            peer = connect()
            peer.send(start)
            peers.append(peer)
    healthy()
    for peer in peers:
        hung_up(peer)
        peer.drop()


def nested_table(levels):
    """The bytes of a table within a table within a table…"""
    data = struct.pack(">I", 0)
    for _ in range(levels):
        data = struct.pack(">I", len(data) + 3) + b"\x01aF" + data
    return data


def nested_array(levels):
    """A table holding an array within an array within an array…"""
    data = b"A" + struct.pack(">I", 0)
    for _ in range(levels):
        data = b"A" + struct.pack(">I", len(data)) + data
    return struct.pack(">I", len(data) + 2) + b"\x01a" + data


@check
def tables_nested_three_thousand_deep_before_login():
    for bomb in (nested_table(3000), nested_array(3000), nested_table(20000)):
        with connect() as peer:
            peer.send(codec.PROTOCOL_HEADER)
            peer.expect("connection.start")
            rest = codec.encode_shortstr("PLAIN") + struct.pack(">I", 12) + b"\0guest\0guest" + codec.encode_shortstr("en_US")
            peer.send(codec.frame(1, 0, struct.pack(">HH", 10, 11) + bomb + rest))
            # A broker may refuse them or survive them.
            peer.finish()
            hung_up(peer)


@check
def tables_nested_three_thousand_deep_in_queue_declare():
    for bomb in (nested_table(3000), nested_array(3000), nested_table(16000)):
        with connect() as peer:
            peer.login()
            peer.open()
            arguments = struct.pack(">HH", 50, 10) + b"\0\0" + codec.encode_shortstr("") + b"\x04" + bomb
            peer.send(codec.frame(1, 1, arguments))
            peer.finish()
            hung_up(peer)


@check
def tables_nested_three_thousand_deep_in_headers():
    for bomb in (nested_table(3000), nested_array(3000)):
        with connect() as peer:
            peer.login()
            peer.open()
            queue = peer.call("queue.declare", exclusive=True)["queue"]
            payload = struct.pack(">HHQH", 60, 0, 1, 1 << 13) + bomb
            peer.send(codec.method("basic.publish", 1, routing_key=queue), codec.frame(2, 1, payload), codec.body(1, b"x"))
            peer.finish()
            hung_up(peer)


@check
def table_lengths_that_lie():
    for arguments in (b"\xff\xff\xff\xff", struct.pack(">I", 10) + b"\x01aS\xff\xff\xff\xff", struct.pack(">I", 6) + b"\x01aA\x7f\xff\xff",
                      struct.pack(">I", 3) + b"\xffab", struct.pack(">I", 7) + b"\x01aF\x00\x00\x00\x09"):  # fmt: skip
        with connect() as peer:
            peer.login()
            peer.open()
            peer.send(codec.frame(1, 1, struct.pack(">HH", 50, 10) + b"\0\0" + codec.encode_shortstr("") + b"\x04" + arguments))
            if not OURS:
                hung_up(peer)
                continue
            answer = peer.method()
            assert answer[1] == "connection.close" and answer[2]["code"] in (501, 502), answer


@check
def frames_larger_than_agreed_are_refused_before_they_come():
    with connect() as peer:
        peer.login()
        peer.send(struct.pack(">BHI", 1, 0, 0xFFFFFFFF))
        answer = peer.method()
        assert answer[1] == "connection.close" and answer[2]["code"] == 501, answer
    if not OURS:
        return
    with connect() as peer:
        peer.login()
        peer.open()
        peer.send(codec.method("basic.publish", 1), codec.header(1, 1 << 62))
        answer = peer.method()
        assert answer[1] == "channel.close" and answer[2]["code"] == 406, answer


@check
def many_announced_bodies_that_never_come():
    # 100 MiB announced 500 times must not be reserved.
    with connect() as peer:
        peer.login()
        for channel in range(1, 501):
            peer.open(channel)
            peer.send(codec.method("basic.publish", channel, routing_key="x"), codec.header(channel, 100 << 20), codec.body(channel, b"x"))
        healthy()


def flood_a_lazy_consumer(**queue):
    """300 MiB for somebody who takes no byte: they must stay in the queue or on disk, not in an outbox."""
    with connect() as lazy, connect() as busy:
        lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for peer in (lazy, busy):
            peer.login()
            peer.open()
        name = busy.call("queue.declare", **queue)["queue"]
        lazy.send(codec.method("basic.consume", 1, queue=name, no_ack=True))
        busy.call("confirm.select")
        body = bytes(64 << 10)
        for i in range(4800):
            busy.publish(body, routing_key=name, delivery_mode=2)
            if i % 100 == 99:
                confirmed(busy, i + 1)
        healthy()
        lazy.drop()
        busy.call("queue.delete", queue=name)
        busy.close()


@check
def a_consumer_of_a_durable_queue_that_never_reads_its_socket():
    flood_a_lazy_consumer(queue="lazy", durable=True)


@check
def a_consumer_of_a_transient_queue_that_never_reads_its_socket():
    flood_a_lazy_consumer(auto_delete=True)


def confirmed(peer, wanted):
    """Waits until the confirm of publish number `wanted`."""
    seen = 0
    while seen < wanted:
        _, name, values = peer.method()
        assert name == "basic.ack", name
        seen = max(seen, values["delivery"])


@check
def a_publisher_that_never_reads_its_confirms():
    with connect(timeout=5) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.login()
        peer.open()
        queue = peer.call("queue.declare", exclusive=True, arguments={"x-max-length": 10})["queue"]
        peer.call("confirm.select")
        # Returns carry the whole message back to somebody who does not want it.
        one = codec.method("basic.publish", 1, routing_key="nowhere", mandatory=True) + codec.header(1, 1000) + codec.body(1, bytes(1000))
        one += codec.method("basic.publish", 1, routing_key=queue) + codec.header(1, 0)
        try:
            for _ in range(400):
                peer.send(one * 500)
        except TimeoutError:
            pass  # the broker stopped reading, which is the point
        healthy()


@check
def a_sender_of_one_byte_at_a_time():
    with connect() as peer:
        data = codec.PROTOCOL_HEADER + codec.method(
            "connection.start-ok", 0, client_properties={}, mechanism="PLAIN", response="\0guest\0guest", locale="en_US"
        )
        for byte in data:
            peer.send(bytes([byte]))
        peer.expect("connection.start")
        peer.expect("connection.tune")


@check
def everything_at_once_in_one_write():
    with connect() as peer:
        peer.send(
            codec.PROTOCOL_HEADER,
            codec.method("connection.start-ok", 0, client_properties={}, mechanism="PLAIN", response="\0guest\0guest", locale="en_US"),
            codec.method("connection.tune-ok", 0, channel_max=2047, frame_max=131072, heartbeat=0),
            codec.method("connection.open", 0, vhost="/"),
            *(codec.method("channel.open", n) for n in range(1, 101)),
            codec.method("queue.declare", 100, exclusive=True),
            codec.method("connection.close", 0, code=200, text="bye"),
        )
        for name in ("connection.start", "connection.tune", "connection.open-ok", *["channel.open-ok"] * 100, "queue.declare-ok", "connection.close-ok"):
            peer.expect(name)


@check
def thousands_of_channels_opened_and_closed():
    with connect() as peer:
        peer.login()
        for _ in range(20):
            peer.send(*(codec.method("channel.open", n) for n in range(1, 1001)))
            for _ in range(1000):
                peer.expect("channel.open-ok")
            peer.send(*(codec.method("channel.close", n, code=200) for n in range(1, 1001)))
            for _ in range(1000):
                peer.expect("channel.close-ok")
        peer.close()


@check
def ten_thousand_connections_opened_and_dropped():
    pid = broker_pid()
    before = open_files(pid) if pid else 0
    pipelined = codec.PROTOCOL_HEADER + codec.method(
        "connection.start-ok", 0, client_properties={}, mechanism="PLAIN", response="\0guest\0guest", locale="en_US"
    )
    pipelined += codec.method("connection.tune-ok", 0, channel_max=2047, frame_max=131072, heartbeat=0)
    pipelined += codec.method("connection.open", 0, vhost="/") + codec.method("channel.open", 1) + codec.method("queue.declare", 1, exclusive=True)
    reset = struct.pack("ii", 1, 0)  # a dropped connection is a reset one, and leaves no port waiting here
    for i in range(10000):
        peer = socket.create_connection((HOST, PORT))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        if i % 3:
            peer.sendall(pipelined if i % 3 == 1 else codec.PROTOCOL_HEADER)
        peer.close()
    healthy()
    deadline = time.monotonic() + 30
    while pid and open_files(pid) > before + 50:
        assert time.monotonic() < deadline, f"{open_files(pid)} files are open, {before} were"
        time.sleep(0.1)


def main():
    failed = 0
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    healthy()
    pid = broker_pid()
    start = resident(pid) if pid else 0
    for function in _checks:
        name = function.__name__.replace("_", " ")
        if wanted not in name:
            continue
        try:
            function()
            healthy()
            now = resident(pid) if pid else 0
            assert now - start < MAY_GROW, f"the broker grew from {start >> 20} to {now >> 20} MiB"
            assert pid == broker_pid(), "the broker was restarted"
            print(f"ok {name}" + (f" ({now >> 20} MiB)" if pid else ""), flush=True)
        except Exception as problem:
            failed += 1
            print(f"not ok {name}: {type(problem).__name__}: {str(problem)[:300]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
