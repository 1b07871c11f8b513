"""kill -9 under load, again and again: sessions, QoS 1 and 2 and retained messages.

Publishers and subscribers keep a ledger of their own, resume their sessions after each crash and finish what was begun,
as the specification asks of a client. At the end of each round: nothing that was acknowledged is lost, nothing of QoS 2
came twice, the order of each publisher is kept, and each retained topic holds the last acknowledged value or a later one.

The number of rounds is CRASH_ROUNDS (5), the seed CRASH_SEED (the time of day).
"""

import os
import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True
from rawmqtt import codec  # noqa: E402
from rawmqtt.client import Closed, Raw, Unexpected, fresh, until  # noqa: E402
from rawmqtt.codec import CONNACK, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, V5, V311  # noqa: E402
from rules import control  # noqa: E402

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "5"))
SEED = int(os.environ.get("CRASH_SEED", time.time()))
WINDOW = 16
GONE = (Closed, OSError, Unexpected)


def session(version, client_id):
    """A connection to a session that lasts, however long the broker takes to come back."""

    def one():
        try:
            raw = Raw(version)
            raw.send(codec.connect(version, client_id, False, 0, properties=[("session_expiry", 3600)]))
            ack = raw.expect(CONNACK)
        except GONE:
            return None
        assert ack.reason == 0, ack
        return raw, bool(ack.present)

    return until(one, "a connection", 60)


class Publisher:
    """Sends numbered messages, QoS 1 and 2 in turn, and knows how far each has got."""

    def __init__(self, version, topic, kept):
        self.version, self.topic, self.kept, self.name = version, topic, kept, fresh("p")
        self.next, self.done, self.flying, self.stopping, self.failure = 0, set(), {}, threading.Event(), None
        self.raw, _ = session(version, self.name)
        self.was = True
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _send(self, number, dup=False):
        # Every fourth goes to a retained topic instead; the subscriber sees both.
        retain = number % 4 == 3
        topic = f"{self.kept}/{number % 3}" if retain else f"{self.topic}/m"
        packet_id = number % 60_000 + 1
        self.raw.send(codec.publish(self.version, topic, f"{self.name} {number}", 1 + number % 2, packet_id, retain, dup))

    def _resume(self):
        """What was not acknowledged is sent again, in its order, with its id."""
        self.raw, present = session(self.version, self.name)
        assert present, "the publisher's session was lost"
        for number, state in self.flying.items():
            if state == "sent":
                self._send(number, dup=True)
            else:
                self.raw.send(codec.ack(self.version, PUBREL, number % 60_000 + 1))

    def _run(self):
        try:
            while self.flying or not self.stopping.is_set():
                try:
                    self._step()
                except GONE:
                    self._resume()
        except Exception as problem:  # shown by the check
            self.failure = problem

    def _step(self):
        while len(self.flying) < WINDOW and not self.stopping.is_set():
            number, self.next = self.next, self.next + 1
            self.flying[number] = "sent"
            self._send(number)
        if not self.flying:
            return
        found = self.raw.packet()
        number = next((one for one in self.flying if one % 60_000 + 1 == found.number), None)
        assert number is not None, f"an acknowledgement of nothing: {found}"
        assert found.reason < 0x80 or found.kind == PUBCOMP, found
        if found.kind == PUBREC:
            self.flying[number] = "released"
            self.raw.send(codec.ack(self.version, PUBREL, found.number))
        else:
            assert found.kind in (PUBACK, PUBCOMP), found
            del self.flying[number]
            self.done.add(number)


class Subscriber:
    """Receives with a session, acknowledges now and then late, and hands a QoS 2 message over once."""

    def __init__(self, version, filters, rng):
        self.version, self.name, self.rng = version, fresh("s"), rng
        self.got, self.released, self.held, self.failure = [], set(), [], None
        self.pending, self.life = set(), 0
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.raw, _ = session(version, self.name)
        self.raw.send(codec.subscribe(version, 1, [(text, 2) for text in filters]))
        self.raw.expect(SUBACK)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.stopped.is_set():
            try:
                self._take(self.raw.packet(deadline=60))
            except GONE:
                if self.stopped.is_set():
                    return
                try:
                    self.raw, present = session(self.version, self.name)
                    assert present, "the subscriber's session was lost"
                except AssertionError as problem:
                    self.failure = problem
                    return
                self.life += 1
                self.held.clear()
            except AssertionError as problem:
                self.failure = problem
                return

    def _take(self, found):
        if found.kind == PUBLISH:
            with self.lock:
                # A QoS 2 id between PUBREC and PUBCOMP stands for the message we have already.
                if found.qos != 2 or found.number not in self.pending:
                    self.got.append((found.payload.decode(), found.qos, f"id {found.number} DUP {found.dup:d} on connection {self.life}"))
            if found.qos == 2:
                self.pending.add(found.number)
            self.held.append((found.qos, found.number))
            while self.held and (len(self.held) > 8 or self.rng.random() < 0.7):
                qos, number = self.held.pop(0)
                if qos:
                    self.raw.send(codec.ack(self.version, PUBACK if qos == 1 else PUBREC, number))
        elif found.kind == PUBREL:
            self.pending.discard(found.number)
            self.raw.send(codec.ack(self.version, PUBCOMP, found.number))
        # What is held back is acknowledged with the next packet; a ping makes one.
        if self.held:
            self.raw.send(codec.PING)

    def payloads(self):
        with self.lock:
            return list(self.got)


def retained(version, kept):
    """What a newcomer is told about the retained topics: {topic: number of the message}."""
    raw = Raw(version)
    raw.send(codec.connect(version, fresh("r")))
    raw.expect(CONNACK)
    mark = fresh("mark")
    raw.send(codec.subscribe(version, 1, [(f"{kept}/+", 1), (mark, 0)]))
    raw.send(codec.publish(version, mark, b""))
    found, seen = {}, set()
    while seen != {"mark", "pong"}:
        packet = raw.packet()
        if packet.kind == PUBLISH and packet.topic == mark:
            seen.add("mark")
            raw.send(codec.PING)
        elif packet.kind == PUBLISH:
            assert packet.retain, packet
            found[packet.topic] = packet.payload.decode()
        elif packet.kind == PINGRESP:
            seen.add("pong")
    raw.close()
    return found


def judge(publishers, subscribers):
    """Compares what was acknowledged with what came."""
    for subscriber in subscribers:
        got = subscriber.payloads()
        first, twice = {}, []
        for place, (text, qos, how) in enumerate(got):
            name, number = text.split()
            key = (name, int(number))
            if key in first:
                # QoS 1 may come again: from the broker after a crash, and from the publisher, which sends again.
                if qos == 2:
                    twice.append(f"{text} as {got[first[key]][2]}, then {how}")
            else:
                first[key] = place
        assert not twice, f"{len(twice)} messages of QoS 2 came twice: {twice[:3]}"
        for publisher in publishers:
            lost = [n for n in sorted(publisher.done) if (publisher.name, n) not in first]
            assert not lost, f"{len(lost)} acknowledged messages of {publisher.name} are lost, the first {lost[:5]}"
            for group in range(4):  # one topic and one QoS: its order is kept
                numbers = [n for n in sorted(publisher.done) if n % 4 == group]
                places = [first[publisher.name, n] for n in numbers]
                assert places == sorted(places), f"order of {publisher.name}, group {group}"


def main():
    rng = random.Random(SEED)
    print(f"# {ROUNDS} rounds, CRASH_SEED={SEED}", flush=True)
    failed = 0
    total = 0
    for number in range(ROUNDS):
        version = (V311, V5)[number % 2]
        topic = fresh("load")
        kepts = [f"{topic}/kept{n}" for n in range(2)]
        subscribers = [Subscriber(version, [f"{topic}/#"], random.Random(rng.random())) for _ in range(2)]
        publishers = [Publisher(version, f"{topic}/{n}", kept) for n, kept in enumerate(kepts)]
        for one in subscribers + publishers:
            one.thread.start()
        name = f"round {number} [{codec.NAMES[version]}]"
        try:
            for _ in range(rng.choice((1, 1, 2))):
                time.sleep(rng.uniform(0.05, 1.2))
                control("kill")
            time.sleep(rng.uniform(0, 0.3))
            for one in publishers:
                one.stopping.set()
            for one in publishers:
                one.thread.join(60)
                if one.failure:
                    raise one.failure
                assert not one.thread.is_alive(), f"not everything was acknowledged: {list(one.flying.items())[:5]}"
            wanted = {f"{one.name} {n}" for one in publishers for n in one.done}

            def all_there():
                for one in subscribers:
                    if one.failure:
                        raise one.failure
                return all(wanted <= {text for text, _, _ in one.payloads()} for one in subscribers)

            try:
                until(all_there, "everything", 30)
            except AssertionError:
                judge(publishers, subscribers)
                raise
            judge(publishers, subscribers)
            for one, kept in zip(publishers, kepts, strict=True):
                found = retained(version, kept)
                for group in range(3):
                    last = max((n for n in one.done if n % 4 == 3 and n % 3 == group), default=None)
                    if last is not None:
                        assert found.get(f"{kept}/{group}") == f"{one.name} {last}", f"retained {group}: {found}, wanted {last}"
            total += sum(len(one.done) for one in publishers)
            print(f"ok {name}", flush=True)
        except Exception as problem:  # the next round gets its turn
            failed += 1
            print(f"not ok {name}: {' '.join(f'{type(problem).__name__}: {problem}'.split())[:400]}", flush=True)
        finally:
            for one in subscribers + publishers:
                getattr(one, "stopped", threading.Event()).set()
                one.raw.close()
    print(f"# {total} messages acknowledged and received by both subscribers", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
