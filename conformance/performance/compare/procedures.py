"""What is done to each contender in a scenario, turn by turn."""

import json
import os
import shlex
import signal
import statistics
import subprocess
import time

from .contenders import Unusable
from .machine import say

FAULTS = ["lost", "dup", "reorder", "misrouted", "corrupt", "nacked", "stray_confirms", "in_doubt", "unsent", "misflagged", "left"]
SPACE_BACK_WITHIN = 30


class Bench:
    """Measures scenarios."""

    def __init__(self, load, cores, place, given, flames=None):
        self.load, self.cores, self.place, self.given, self.flames = load, cores, place, given, flames
        self.sound = True

    def measure(self, name, scenario, brokers, relay):
        """All rounds of a scenario; returns the medians of each contender."""
        rounds = self.given.rounds or scenario.get("rounds", 3)
        say(f"{name}: {scenario['about']}")
        reports = {}
        protocol = self.protocol(scenario)
        for broker in brokers:
            # Who has no part shall not run beside those who have.
            if protocol not in broker.protocols:
                broker.end()
        brokers = [broker for broker in brokers if protocol in broker.protocols]
        with_relay = [relay] if "relay" in scenario else []
        try:
            for _ in range(rounds):
                for contender in [*brokers, *with_relay]:
                    self.turn(name, scenario, contender, reports)
                if scenario.get("disk"):
                    reports.setdefault("disk", []).append(self.disk(name))
        finally:
            for contender in with_relay:
                contender.end()
        return {contender: medians(each) for contender, each in reports.items()}

    def turn(self, name, scenario, contender, reports):
        try:
            protocol = self.protocol(scenario)
            if scenario.get("fresh") or not contender.is_running() or contender.protocol != protocol:
                contender.start_fresh(protocol)
            report = PROCEDURES[scenario.get("kind", "load")](self, name, scenario, contender)
            if scenario.get("fresh"):
                contender.end()
        except Unusable as why:
            say(f"  {contender.name}: {why}")
            self.sound = False
            contender.end()
            return
        reports.setdefault(contender.name, []).append(report)

    def protocol(self, scenario):
        """What is spoken in a scenario."""
        words = shlex.split(scenario.get("load", ""))
        spoken = words[words.index("--proto") + 1] if "--proto" in words else "amqp"
        return "mqtt5" if spoken == "mqtt" and self.given.mqtt5 else spoken

    def command(self, words, contender, name):
        """Runs the generator against a contender and returns its report."""
        target = ["--addr", contender.address(), "--broker-pid", str(contender.process.pid)]
        words = [*words, *target, "--name", contender.name, "--scenario", name]
        if not self.flames or contender.name != "portolan":
            return self.generate(words)
        phase = f"-{words[words.index('--phase') + 1]}" if "--phase" in words else ""
        with self.flames.over(contender.process.pid, name + phase, self.place.root, self.cores.generator):
            return self.generate(words)

    def generate(self, words, cores=None):
        def prepare():
            os.sched_setaffinity(0, cores or self.cores.generator)

        done = subprocess.run([self.load, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, preexec_fn=prepare)
        say(f"  {done.stderr.strip()}")
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise Unusable(f"the generator said nothing: {done.stderr[-500:]}") from None
        if self.given.reports:
            with open(self.given.reports, "a", encoding="utf-8") as out:
                out.write(json.dumps(report) + "\n")
        if "error" in report:
            raise Unusable(report["error"])
        faults = [f"{report[fault]} {fault}" for fault in FAULTS if report.get(fault)]
        if faults:
            say(f"  {report.get('name')} got it wrong: {', '.join(faults)}")
            self.sound = False
        return report

    def disk(self, name):
        """What a bare write and fdatasync takes, on the core and the disk of the brokers."""
        words = ["sync", "--dir", str(self.place.root), "--seconds", str(min(self.given.seconds or 4, 4)), "--scenario", name]
        return self.generate(words, self.cores.broker)

    def scaled(self, number):
        return max(100, int(number * self.given.scale) // 100 * 100)


def load(bench, name, scenario, contender):
    """One command."""
    words = shlex.split(scenario["load"])
    if contender.name == "relay":
        words += ["--raw"]
    if bench.given.seconds and "--seconds" in words:
        words[words.index("--seconds") + 1] = str(bench.given.seconds)
    for many in ("--messages", "--count"):
        if many in words:
            at = words.index(many) + 1
            words[at] = str(bench.scaled(int(words[at])))
    if "--proto" in words:
        words[words.index("--proto") + 1] = contender.protocol
    return bench.command(words, contender, name)


def restarts(contender, report):
    """Kills and restarts, stops and restarts, and times both."""
    contender.stop(signal.SIGKILL)
    report["ready_after_kill_s"] = contender.start()
    report["rss_after_kill"] = contender.memory()
    began = time.monotonic()
    contender.stop()
    report["stop_s"] = time.monotonic() - began
    report["ready_after_stop_s"] = contender.start()
    say(f"  {contender.name} ready after kill -9 {report['ready_after_kill_s']:.3f} s, after a stop {report['ready_after_stop_s']:.3f} s")


def big(bench, name, scenario, contender):
    """A large persistent backlog: stored, restarted, drained to a tenth, the disk looked at, drained."""
    messages, size = bench.scaled(scenario["messages"]), 1024
    most = messages * 9 // 10 // 100 * 100
    what = ["backlog", "--size", str(size), "--messages", str(messages), "--run", "4711", "--durable", "--patience", "120"]
    fill = [*what, "--phase", "fill", "--persistent", "--confirm", "1000", "--hold", "5"]
    drain = [*what, "--phase", "drain", "--prefetch", "1000", "--ack-every", "100"]
    report = bench.command(fill, contender, name)
    report["disk_full_per_msg"] = contender.disk() / messages
    restarts(contender, report)
    report["rss_after_kill_per_msg"] = (report.pop("rss_after_kill") - report["rss_before"]) / messages
    first = bench.command([*drain, "--take", str(most)], contender, name)
    report |= {figure: first[figure] for figure in ("drain_rate", "broker_us_per_drained", "rss_peak_draining") if figure in first}
    live = (messages - most) * size
    report["disk_per_live"] = space_back(contender, live)
    bench.command([*drain, "--skip", str(most)], contender, name)
    return report


def space_back(contender, live):
    """The disk occupied for each live byte, once it is back to what is demanded or no longer awaited."""
    deadline = time.monotonic() + SPACE_BACK_WITHIN
    while (ratio := contender.disk() / live) > 1.5 and time.monotonic() < deadline:
        time.sleep(0.2)
    say(f"  {contender.name} occupies {ratio:.2f} bytes of disk for each live byte")
    return ratio


def queues(bench, name, scenario, contender):
    """Many durable queues: declared, restarted, looked for."""
    what = ["queues", "--count", str(bench.scaled(scenario["count"])), "--run", "4711"]
    report = bench.command([*what, "--durable"], contender, name)
    restarts(contender, report)
    bench.command([*what, "--deed", "check"], contender, name)
    return report


PROCEDURES = {"load": load, "big": big, "queues": queues}


def medians(reports):
    """The median of each figure over the rounds."""
    figures = {}
    for report in reports:
        for figure, value in report.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                figures.setdefault(figure, []).append(value)
    return {figure: statistics.median(values) for figure, values in figures.items()} | {"rounds": len(reports)}
