#!/usr/bin/env python3
"""Speaks every transcript to a broker and reports what it answered differently.

usage: runner.py HOST:PORT [--rabbitmq] [--only TEXT] [FOLDER...]
"""

import argparse
import itertools
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import conversation  # noqa: E402
from rawamqp import codec  # noqa: E402
from rawamqp.client import Closed, Connection  # noqa: E402

QUIET = 0.3  # how long "nothing" must last
DEADLINE = 20.0


class Mismatch(Exception):
    """The broker answered otherwise than the transcript says."""


class Speaker:
    """One connection speaking the lines of a case."""

    def __init__(self, address):
        self.connection = Connection(*address, timeout=DEADLINE)
        self.declared = []  # (delete method, field, name) of all that must go afterwards
        self.unsent = []  # consecutive `>` lines go out in one write
        self.last = None

    def log_in(self, user, tune, channel):
        self.connection.login(user, user, tune=tune)
        if channel:
            self.connection.open()

    def speak(self, line):
        mark, _, text = line.text.partition(" ")
        if mark == ">":
            self._note(text)
            self.unsent.append(conversation.encode(text))
        elif mark == "<":
            self._listen(text)
        else:
            raise conversation.BadTranscript(f"line {line.number}: {line.text}")

    def _note(self, text):
        name, _, rest = text.partition(" ")
        if name in ("queue.declare", "exchange.declare"):
            kind = name.split(".")[0]
            given = conversation.fields(rest)
            self._remember(kind, conversation.unquote(given.get(kind, "")))

    def _remember(self, kind, name):
        clean = name.replace(b"\r", b"").replace(b"\n", b"")
        if clean and (kind, clean) not in self.declared:
            self.declared.append((kind, clean))

    def _next(self, timeout=DEADLINE):
        while True:
            frame = self.connection.frame(timeout)
            if frame.kind == codec.METHOD:
                name, values = codec.decode_method(frame.payload)
                if name == "queue.declare-ok":
                    self._remember("queue", values["queue"].encode())
            if frame.kind != codec.HEARTBEAT:
                return conversation.show_frame(frame)

    def flush(self):
        self.connection.send(*self.unsent)
        self.unsent.clear()

    def _listen(self, text):
        self.flush()
        self.last = text
        try:
            if text == "nothing":
                raise Mismatch(f"expected nothing\n     got < {self._next(QUIET)}")
            if text == "closed":
                raise Mismatch(f"expected the connection to be closed\n     got < {self._next()}")
            wanted, shown = conversation.canonical(text), self._next()
            if not conversation.matches(wanted, shown):
                raise Mismatch(f"expected < {wanted}\n     got < {shown}")
        except Closed:
            if text != "closed":
                raise Mismatch(f"expected < {text}\n     got < closed") from None
        except TimeoutError:
            if text != "nothing":
                raise Mismatch(f"expected < {text}\n     got nothing") from None

    def finish(self):
        """Whatever the conversation, it must end as the protocol says, with no frame left over."""
        self.flush()
        name, _, rest = (self.last or "").partition(" ")
        if name in ("closed", "connection.close-ok"):
            return
        if name == "connection.close":
            self.connection.send(codec.method("connection.close-ok", 0))
            self._listen("closed")
            return
        if name == "channel.close":
            channel = int(conversation.fields(rest)["channel"])
            self.connection.send(codec.method("channel.close-ok", channel), codec.method("channel.open", channel))
            self._listen(f"channel.open-ok channel={channel}")
        self.connection.send(codec.method("connection.close", 0, code=200, text="bye"))
        self._listen("connection.close-ok")


def prepare(address, case, prepared):
    """Speaks a given; its connection joins `prepared` first, so that it is cleaned up even when it fails."""
    speaker = Speaker(address)
    prepared.append(speaker)
    speaker.log_in("guest", {}, True)
    for line in case.lines:
        speaker.speak(line)


def until_end(lines):
    """The lines before `end`, which cuts a conversation short."""
    return itertools.takewhile(lambda line: line.text != "end", lines)


def run_case(address, case, givens):
    """Speaks one case; raises Mismatch with the line that went wrong."""
    prepared, user, tune, channel, bare, lines = [], "guest", {}, True, False, []
    speaker = None
    try:
        for line in until_end(case.lines):
            word, _, rest = line.text.partition(" ")
            if word == "given":
                prepare(address, givens[rest], prepared)
            elif word == "as":
                user = rest
            elif word == "tune":
                tune = {key: int(value) for key, value in conversation.fields(rest).items()}
            elif line.text == "no channel":
                channel = False
            elif line.text == "bare":
                bare = True
            else:
                lines.append(line)
        speaker = Speaker(address)
        if not bare:
            speaker.log_in(user, tune, channel)
        for line in lines:
            try:
                speaker.speak(line)
            except Mismatch as mismatch:
                raise Mismatch(f"line {line.number}: {mismatch}") from None
        try:
            # What a bare conversation leaves half open has no orderly end.
            if not bare:
                speaker.finish()
        except Mismatch as mismatch:
            raise Mismatch(f"after the last line: {mismatch}") from None
    finally:
        everyone = [s for s in [speaker, *prepared] if s]
        for one in everyone:
            one.connection.drop()
        clean(address, [item for one in everyone for item in one.declared])


def clean(address, declared):
    """Deletes what a case declared; names that cannot be deleted are the broker's own."""
    if not declared:
        return
    connection = Connection(*address, timeout=DEADLINE)
    connection.login()
    connection.open()
    deadline = time.monotonic() + DEADLINE
    pending = list(dict.fromkeys(declared))
    while pending:
        kind, name = pending[0]
        connection.send(codec.method(f"{kind}.delete", 1, **{kind: name}))
        _, answer, values = connection.method()
        if answer == "channel.close":
            connection.send(codec.method("channel.close-ok", 1))
            connection.open()
            # An exclusive queue goes a moment after its connection.
            if values["code"] == 405 and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
        pending.pop(0)
    connection.close()


def apply_differences(cases, entries):
    """Puts our answers where we deliberately differ; returns the names of the cases concerned."""
    by_name = {case.full_name: case for case in cases}
    different = set()
    for entry in entries:
        for name in entry["cases"]:
            case = by_name.get(name)
            text = "\n".join(line.text for line in case.lines) if case else ""
            rabbitmq, ours = entry["rabbitmq"].strip(), entry["portolan"].strip()
            if rabbitmq not in text:
                raise conversation.BadTranscript(f"differences.toml: {name!r} does not say {rabbitmq!r}")
            replaced = text.replace(rabbitmq, ours).splitlines()
            case.lines = [conversation.Line(case.lines[0].number + i, t) for i, t in enumerate(replaced) if t]
            different.add(name)
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="HOST:PORT of the broker")
    parser.add_argument("--rabbitmq", action="store_true", help="expect RabbitMQ's answers everywhere")
    parser.add_argument("--only", default="", help="run the cases whose file/name contains this")
    parser.add_argument("folders", nargs="*", type=Path, default=[HERE / "amqp091"])
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    address = (host or "127.0.0.1", int(port))

    givens, cases, apart = {}, [], []
    for folder in options.folders:
        for path in sorted(folder.glob("*.txt")):
            loaded = conversation.load(path, givens)
            cases += loaded
            # These declare nothing and mostly wait for the broker's delays.
            apart += loaded if path.stem == "handshake" else []
    different = set()
    if not options.rabbitmq:
        different = apply_differences(cases, tomllib.loads((HERE / "differences.toml").read_text())["difference"])
    cases = [case for case in cases if options.only in case.full_name]

    failed, matched, differed = 0, 0, 0

    def attempt(case):
        try:
            run_case(address, case, givens)
            return None
        except Exception as problem:  # one broken case must not hide the others
            return problem if isinstance(problem, Mismatch) else f"{type(problem).__name__}: {problem}"

    def results():
        with ThreadPoolExecutor(8) as pool:
            waiting = [(case, pool.submit(attempt, case)) for case in cases if case in apart]
            for case in cases:
                if case not in apart:
                    yield case, attempt(case)
            for case, future in waiting:
                yield case, future.result()

    for case, problem in results():
        if problem is not None:
            failed += 1
            print(f"not ok {case.full_name}: {problem}", flush=True)
        else:
            differs = case.full_name in different
            differed += differs
            matched += not differs
            print(f"ok {case.full_name}{' (deliberate difference)' if differs else ''}", flush=True)
    print(f"{len(cases)} cases: {matched} match, {differed} deliberate differences, {failed} fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
