"""How a rule of the MQTT specifications is written as a check, and how the checks are run.

A check names the statements it proves: `v3` those of 3.1.1, `v5` those of 5.0, by their numbers (MQTT- is left out).
It is called once for each version, which is its only argument; `conformance/requirements` reads the numbers back.
"""

import os
import socket
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True
from rawmqtt.codec import NAMES, V5, V31, V311  # noqa: E402
from rawmqtt.client import Client, fresh  # noqa: E402

BEFORE_5, ALL = (V31, V311), (V31, V311, V5)
_rules = []


def rule(v3="", v5="", versions=None, alone=False):
    """Registers a check. `alone`: it restarts the broker, so nothing else may run."""

    def register(function):
        for number in versions or (BEFORE_5 if v3 else ()) + ((V5,) if v5 else ()):
            _rules.append((function, number, alone))
        return function

    return register


def same(got, wanted, what="value"):
    """Fails unless both are equal."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def lasting(version, client_id=None, clean=False, expiry=600, properties=(), **options):
    """A client whose session outlives its connection."""
    more = [("session_expiry", expiry)] if version == V5 else []
    return Client(version, client_id, clean=clean, properties=[*more, *properties], **options)


def forget(version, client_id):
    """Ends a session for good."""
    Client(version, client_id, clean=True).leave()


def control(word):
    """Asks the harness to `restart` or `kill` the broker."""
    host, _, port = os.environ["BROKER_CONTROL"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=120) as stream:
        stream.sendall(word.encode() + b"\n")
        answer = stream.makefile().readline().strip()
    if answer.startswith("error"):
        raise AssertionError(answer)


def _one(row):
    function, version, _ = row
    name = f"{function.__name__.replace('_', ' ')} [{NAMES[version]}]"
    try:
        function(version)
        return name, None
    except Exception as problem:  # every check gets its turn
        where = traceback.extract_tb(problem.__traceback__)
        line = next((frame.lineno for frame in where if frame.name == function.__name__), 0)
        return name, f"line {line}: " + " ".join(f"{type(problem).__name__}: {problem}".split())[:400]


def run():
    """Runs the checks (those whose name contains the first argument), most of them eight at a time."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    rows = [row for row in _rules if wanted in row[0].__name__.replace("_", " ")]
    failed = 0

    def tell(outcome):
        nonlocal failed
        name, why = outcome
        failed += why is not None
        print(f"ok {name}" if why is None else f"not ok {name}: {why}", flush=True)

    with ThreadPoolExecutor(8) as pool:
        for outcome in pool.map(_one, [row for row in rows if not row[2]]):
            tell(outcome)
    for row in rows:
        if row[2]:
            tell(_one(row))
    sys.exit(1 if failed else 0)


__all__ = ["ALL", "BEFORE_5", "V31", "V311", "V5", "Client", "control", "forget", "fresh", "lasting", "rule", "run", "same"]
