"""Runs the fleet example: devices, a dashboard that comes late, commands, a device that dies and one that comes back."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

FLEET = Path(os.environ["EXAMPLES"]) / "fleet"
ENVIRONMENT = {**os.environ, "MQTT_ADDRESS": f"{os.environ['BROKER_HOST']}:{os.environ['BROKER_MQTT']}", "FLEET_PERIOD": "0.2"}
SIZE, DEADLINE = 20, 30


class Program:
    """One of the example's programs, and the lines it has printed."""

    def __init__(self, *words):
        command = [sys.executable, "-u", FLEET / words[0], *map(str, words[1:])]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def says(self, text, count=1):
        """Waits for a line."""
        end = time.monotonic() + DEADLINE
        while sum(text in line for line in list(self.lines)) < count:
            assert time.monotonic() < end, f"{text!r} was not said {count} times: {self.lines[-5:]}"
            time.sleep(0.02)


def command(*words):
    done = subprocess.run([sys.executable, FLEET / "command.py", *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr[-300:]
    return done.stdout.strip()


def start(fleet):
    for number in range(SIZE):
        fleet[number] = Program("device.py", number)
    for number, device in fleet.items():
        device.says(f"fleet-device-{number} starts")


def watch(fleet):
    fleet["late"] = Program("dashboard.py")
    for number in range(SIZE):
        fleet["late"].says(f"device {number} was online")
    fleet["late"].says("devices report")


def ask(fleet):
    answer = command("3", "target=25")
    assert answer == '{"device": "3", "done": {"target": 25.0}}', answer
    fleet[3].says("did {'target': 25.0}")


def die(fleet):
    fleet[5].process.kill()
    fleet["late"].says("device 5 is offline")


def resume(fleet):
    # It is away: the command waits in its session, and the answer comes when it is back.
    asker = threading.Thread(target=lambda: fleet.__setitem__("answer", command("5", "target=7")))
    asker.start()
    fleet[5] = Program("device.py", 5)
    fleet[5].says("fleet-device-5 resumes")
    fleet[5].says("did {'target': 7.0}")
    asker.join(DEADLINE)
    assert fleet.get("answer") == '{"device": "5", "done": {"target": 7.0}}', fleet.get("answer")


def leave(fleet):
    fleet[7].process.terminate()
    assert fleet[7].process.wait(DEADLINE) == 0
    fleet["late"].says("device 7 is offline")


def main():
    fleet, failed = {}, 0
    steps = {
        f"{SIZE} devices start": start, "a late dashboard learns every state": watch, "a command is answered": ask,
        "a device that dies is seen offline": die, "a device that was away does what it was told": resume, "a device says goodbye": leave,
    }  # fmt: skip
    try:
        for name, step in steps.items():
            try:
                step(fleet)
                print(f"ok {name}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as problem:
                failed += 1
                print(f"not ok {name}: {' '.join(str(problem).split())[:300]}", flush=True)
    finally:
        for program in fleet.values():
            if isinstance(program, Program):
                program.process.kill()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
