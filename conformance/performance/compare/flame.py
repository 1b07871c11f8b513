"""Flame graphs: where a broker's processor time goes, recorded by perf and drawn by inferno."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from . import build
from .machine import say

INFERNO = "0.12.8"
# A prime, so that the samples do not fall into step with what happens at regular times.
SAMPLES_PER_SECOND = 499
# Bytes of stack kept with each sample; the release build has no frame pointers.
STACK = 16384
# Per cent of the samples below which a frame is left out, tried in turn until the picture is small enough.
LEAST = [0.1, 0.2, 0.5, 1, 2]
LARGEST = 300_000


class Flames:
    """Draws a picture of each command that loads Portolan, once."""

    def __init__(self, folder, here):
        if not shutil.which("perf"):
            raise SystemExit("Flame graphs need perf, which is not installed (Debian: apt-get install linux-perf).")
        self.folder, self.inferno = folder, inferno(here)
        folder.mkdir(parents=True, exist_ok=True)
        self.drawn = set()

    @contextlib.contextmanager
    def over(self, pid, name, scratch, cores):
        """Records the process while the body runs, and draws what was recorded."""
        if name in self.drawn:
            yield
            return
        self.drawn.add(name)
        data = scratch / "perf.data"
        command = ["perf", "record", "-q", "-o", data, "-e", "cpu-clock", "-F", str(SAMPLES_PER_SECOND)]
        command += ["--call-graph", f"dwarf,{STACK}", "-p", str(pid)]

        def prepare():
            # The load generator's core: what perf takes shall not come from the broker.
            os.sched_setaffinity(0, cores)

        recorder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)
        try:
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
            said = recorder.communicate()[1].strip()
        if not data.exists() or data.stat().st_size == 0:
            say(f"  no flame graph of {name}: perf recorded nothing: {said}")
            return
        self.draw(data, name)
        data.unlink()

    def draw(self, data, name):
        # Looking up what was inlined takes minutes and makes frames nobody can place.
        script = subprocess.run(["perf", "script", "--no-inline", "-i", data], capture_output=True, check=False)
        folded = subprocess.run([self.inferno / "inferno-collapse-perf"], input=script.stdout, capture_output=True, check=False)
        if folded.returncode != 0 or not folded.stdout:
            say(f"  no flame graph of {name}: {(script.stderr + folded.stderr).decode(errors='replace').strip()[-500:]}")
            return
        for least in LEAST:
            drawing = [self.inferno / "inferno-flamegraph", "--title", f"portolan, {name}", "--minwidth", str(least)]
            picture = subprocess.run(drawing, input=folded.stdout, stdout=subprocess.PIPE, check=True).stdout
            if len(picture) < LARGEST:
                break
        (self.folder / f"{name}.svg").write_bytes(picture)
        say(f"  drawn: {self.folder / name}.svg")


def inferno(here):
    """The folder of inferno's programs: those on the path, or ones installed into the build's target folder."""
    found = shutil.which("inferno-flamegraph")
    if found and shutil.which("inferno-collapse-perf"):
        return Path(found).parent
    root = build.target_folder(here) / "tools"
    if not (root / "bin/inferno-flamegraph").exists():
        say(f"Installing inferno {INFERNO} into {root} …")
        command = ["cargo", "install", "inferno", "--quiet", "--locked", "--version", INFERNO, "--root", root]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("Flame graphs need inferno, which cannot be installed here.")
    return root / "bin"
