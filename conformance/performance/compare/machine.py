"""The machine: its cores, its disk, its processes."""

import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def say(text):
    """One line for people."""
    print(text, file=sys.stderr, flush=True)


def free_port():
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cores:
    """Which core brokers run on, and which the generator."""

    def __init__(self, pin):
        usable = sorted(os.sched_getaffinity(0))
        self.pinned = pin and len(usable) >= 2
        if pin and not self.pinned:
            say("There is only one core: nothing is pinned, and the generator takes time from the brokers.")
        self.all = set(usable)
        self.broker, self.generator = ({usable[0]}, {usable[1]}) if self.pinned else (self.all, self.all)

    def pin(self, root):
        """Puts a process, its threads and its children on the brokers' core."""
        for pid in tree(root):
            for task in tasks(pid):
                try:
                    os.sched_setaffinity(task, self.broker)
                except ProcessLookupError:
                    pass  # it ended meanwhile


def tasks(pid):
    """The threads of a process."""
    try:
        return [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def tree(root):
    """A process and all its descendants, parents first."""
    found = [root]
    for pid in found:
        for task in tasks(pid):
            try:
                found += [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
            except FileNotFoundError:
                pass
    return found


def resident(root):
    """Bytes of memory that a process and its descendants occupy."""
    total = 0
    for pid in tree(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except FileNotFoundError:
            pass
    return total


def occupied(folder):
    """Bytes of disk that a folder occupies; blocks, not lengths, since files may be sparse or preallocated."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def start(command, log, env=None, cores=None):
    """Starts a process that outlives a signal to our terminal; its output goes to `log`."""

    def prepare():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        if cores:
            os.sched_setaffinity(0, cores)

    with open(log, "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, preexec_fn=prepare, start_new_session=True
        )


def stop(process, how=signal.SIGTERM, patience=120):
    """Ends a process and its descendants; with SIGKILL all at once."""
    if process.poll() is not None:
        return
    everyone = tree(process.pid)
    for pid in everyone if how == signal.SIGKILL else everyone[:1]:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        say(f"process {process.pid} did not end within {patience} s and is killed")
        stop(process, signal.SIGKILL)
    deadline = time.monotonic() + patience
    while any(alive(pid) for pid in everyone[1:]) and time.monotonic() < deadline:
        time.sleep(0.01)


def alive(pid):
    """Whether a process runs (one that only waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def describe():
    """The machine in a few words."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


class Workplace:
    """A temporary folder for the brokers' data, removed in the end."""

    def __init__(self, parent):
        parent.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix="portolan-performance-", dir=parent))
        kind = subprocess.run(["stat", "-f", "-c", "%T", self.root], capture_output=True, text=True, check=False).stdout.strip()
        if kind in ("tmpfs", "ramfs"):
            say(f"{parent} is on {kind}: syncing costs nothing there, and the figures for persistent messages mean nothing.")
        self.count = 0

    def folder(self, name):
        """A new empty folder."""
        self.count += 1
        made = self.root / f"{name}-{self.count}"
        made.mkdir()
        return made

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root, ignore_errors=True)
