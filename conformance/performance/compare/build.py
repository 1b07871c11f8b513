"""Building what is measured and what measures."""

import json
import os
import subprocess
from pathlib import Path

from .machine import say


def repository(here):
    """The top of the checkout."""
    return here.parent.parent


def target_folder(here):
    """Where builds go."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or repository(here) / "target")


def build(here, package, binary, *more):
    """Builds a package in release mode and returns its binary, or None."""
    command = ["cargo", "build", "--release", "--quiet", "-p", package, "--bin", binary, "--message-format", "json-render-diagnostics"]
    done = subprocess.run([*command, *more], cwd=repository(here), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return None
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == binary and message.get("executable"):
            return Path(message["executable"])
    return None


def load_generator(here):
    """The load generator."""
    say("Building the load generator in release mode …")
    built = build(here, "portolan-performance", "portolan-load")
    if not built:
        raise SystemExit("The load generator does not build.")
    return built


def portolan(here):
    """Portolan's binary: PORTOLAN_BIN, or one built now; None if there is none."""
    given = os.environ.get("PORTOLAN_BIN")
    if given:
        return Path(given).resolve() if os.access(given, os.X_OK) else None
    say("Building Portolan in release mode …")
    return build(here, "portolan-server", "portolan")


def rumqttd(here):
    """rumqttd: RUMQTTD_BIN, or one built now from the versions that rumqttd-peer names; None if there is none."""
    given = os.environ.get("RUMQTTD_BIN")
    if given:
        return Path(given).resolve() if os.access(given, os.X_OK) else None
    say("Building rumqttd in release mode …")
    where = ["--manifest-path", here / "rumqttd-peer" / "Cargo.toml", "--target-dir", target_folder(here) / "rumqttd-peer"]
    return build(here, "rumqttd-peer", "rumqttd-peer", "--locked", *where)
