"""Runs every example as its README says: each producer's orders are received by each language's consumer."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES, RUST = Path(os.environ["EXAMPLES"]), Path(os.environ["RUST_EXAMPLES"])
PYTHON = os.environ["PYTHON"]
PROGRAMS = {
    "Rust": ([RUST / "produce"], [RUST / "consume"]),
    "Python": ([PYTHON, EXAMPLES / "python/produce.py"], [PYTHON, EXAMPLES / "python/consume.py"]),
    "JavaScript": (["node", EXAMPLES / "javascript/produce.js"], ["node", EXAMPLES / "javascript/consume.js"]),
}
ORDERS = [f"order {number}" for number in range(1, 11)]


def run(command, *arguments):
    url = f"amqp://guest:guest@{os.environ['BROKER_HOST']}:{os.environ['BROKER_PORT']}/%2f"
    environment = {**os.environ, "AMQP_URL": url}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise AssertionError(f"{Path(command[-1]).name} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout.splitlines()


def main():
    failed = 0
    for sender, (produce, _) in PROGRAMS.items():
        for receiver, (_, consume) in PROGRAMS.items():
            name = f"{sender} sends, {receiver} receives"
            try:
                assert run(produce) == [f"sent {order}" for order in ORDERS], "not everything was sent"
                got = run(consume, str(len(ORDERS)))
                assert got == [f"received {order}" for order in ORDERS], got
                print(f"ok {name}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as problem:
                failed += 1
                print(f"not ok {name}: {' '.join(str(problem).split())[:300]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
