"""Finds or installs what the client suites need; what cannot be had is named, not hidden."""

import os
import shutil
import subprocess
from pathlib import Path

CONFORMANCE = Path(__file__).resolve().parents[1]
ROOT = CONFORMANCE.parent
VENV = CONFORMANCE / ".venv"
JAVA_CLIENT = Path("/usr/share/java/amqp-client.jar")
INSTALL_SECONDS = 600


class Missing(Exception):
    """A tool could not be installed; the text says which and why."""


def _run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, **options)
    if done.returncode:
        tail = " / ".join(done.stdout.strip().splitlines()[-3:])
        raise Missing(f"{' '.join(map(str, command[:4]))} … failed: {tail}")


class Broken(Exception):
    """Something of our own does not build."""


class Tools:
    """Installs each tool at most once per run."""

    def __init__(self):
        self._known, self._updated = {}, False

    def need(self, name):
        """Makes the tool available, or raises Missing (again, if it did before)."""
        if name not in self._known:
            print(f"# preparing {name}", flush=True)
            try:
                getattr(self, "_" + name.replace("-", "_"))()
                self._known[name] = None
            except (Missing, OSError, subprocess.SubprocessError) as problem:
                self._known[name] = Missing(f"{name} could not be had: {problem}")
        if self._known[name]:
            raise self._known[name]

    def _apt(self, *packages):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Missing(f"install {' '.join(packages)} (apt needs root, or is not here)")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if not self._updated:
            _run(["apt-get", "update", "-qq"], env=environment)
            self._updated = True
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment)

    def _python(self):
        """A virtual environment with the pinned client libraries; made anew when the pins change."""
        pins = (CONFORMANCE / "requirements.txt").read_text()
        stamp = VENV / "requirements.txt"
        if stamp.is_file() and stamp.read_text() == pins:
            return
        shutil.rmtree(VENV, ignore_errors=True)
        try:
            _run(["python3", "-m", "venv", VENV])
        except Missing:
            self._apt("python3-venv")
            _run(["python3", "-m", "venv", VENV])
        _run([VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", CONFORMANCE / "requirements.txt"])
        stamp.write_text(pins)

    def _node(self):
        if not (shutil.which("node") and shutil.which("npm")):
            self._apt("nodejs", "npm")
        folder = CONFORMANCE / "js"
        pins = (folder / "package-lock.json").read_text()
        stamp = folder / "node_modules" / ".stamp"
        if stamp.is_file() and stamp.read_text() == pins:
            return
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
        stamp.write_text(pins)

    def _java(self):
        if not shutil.which("javac"):
            self._apt("default-jdk-headless")
        if not JAVA_CLIENT.exists():
            self._apt("librabbitmq-client-java")

    def _amqp_tools(self):
        if not shutil.which("amqp-publish"):
            self._apt("amqp-tools")

    def _paho_c(self):
        if not Path("/usr/include/MQTTClient.h").exists() or not shutil.which("cc"):
            self._apt("libpaho-mqtt-dev", "gcc", "libc6-dev")

    def _mosquitto_clients(self):
        if not shutil.which("mosquitto_rr"):
            self._apt("mosquitto-clients")

    def _rust(self):
        """The Rust clients, in the profile that the tests have already built."""
        command = ["cargo", "build", "--locked", "--bins", "-p", "portolan-conformance", "-p", "portolan-examples"]
        if subprocess.run(command, cwd=ROOT).returncode:
            raise Broken("the Rust clients do not build")

    def _rumqttd(self):
        """The comparison with rumqttd's codec, a package of its own so that the broker's lock names none of its crates."""
        package = ["--locked", "--manifest-path", str(CONFORMANCE / "second-opinion/Cargo.toml")]
        try:
            _run(["cargo", "fetch", *package])
        except Missing as problem:
            # What the broker depends on has changed, and this package's lock has not followed.
            if "cannot update the lock file" in str(problem):
                raise Broken(f"second-opinion/Cargo.lock is behind: {problem}") from problem
            raise
        if subprocess.run(["cargo", "build", "--offline", "--target-dir", str(target_folder()), *package]).returncode:
            raise Broken("the comparison with rumqttd does not build")


def target_folder():
    """Where cargo puts what it builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
