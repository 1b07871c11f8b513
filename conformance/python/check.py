"""What every Python suite shares: where the broker is, how a check is written, how waiting is done."""

import itertools
import os
import socket
import sys
import time
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

HOST = os.environ.get("BROKER_HOST", "127.0.0.1")
PORT = int(os.environ.get("BROKER_PORT", "5672"))
URL = f"amqp://guest:guest@{HOST}:{PORT}/%2F"
DEADLINE = 20.0

_checks = []
_numbers = itertools.count(1)


def check(function):
    """Registers a check; its name is what the report says."""
    _checks.append(function)
    return function


def fresh(prefix="q"):
    """A name no other check uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def same(got, wanted, what="value"):
    """Fails unless both are equal."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def until(condition, what="condition", step=lambda: time.sleep(0.01)):
    """Waits for the event itself, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {DEADLINE:.0f} s")
        step()


def control(word):
    """Asks the harness to `restart` or `kill` the broker, or for its `pid`."""
    host, _, port = os.environ["BROKER_CONTROL"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=120) as stream:
        stream.sendall(word.encode() + b"\n")
        answer = stream.makefile().readline().strip()
    if answer.startswith("error"):
        raise AssertionError(answer)
    return answer


def run(call=lambda function: function()):
    """Runs the checks (those whose name contains the first argument) and exits accordingly."""
    failed = 0
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for function in _checks:
        name = function.__name__.replace("_", " ")
        if wanted not in name:
            continue
        try:
            call(function)
            print(f"ok {name}", flush=True)
        except Exception as problem:  # every check gets its turn
            failed += 1
            where = traceback.extract_tb(problem.__traceback__)
            line = next((frame.lineno for frame in where if frame.name == function.__name__.split(" ")[0]), 0)
            text = " ".join(f"{type(problem).__name__}: {problem}".split())
            print(f"not ok {name}: line {line}: {text[:400]}", flush=True)
    sys.exit(1 if failed else 0)
