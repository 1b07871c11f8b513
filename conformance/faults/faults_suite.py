#!/usr/bin/env python3
"""Disks that are full and data folders that are damaged, each with a broker of its own."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import damage  # noqa: E402
import disk_full  # noqa: E402
from support import Skip  # noqa: E402


def run(function):
    """One check; True unless it failed."""
    name = function.__name__.replace("_", " ")
    try:
        function()
    except Skip as missing:
        print(f"skip {name}: {missing}", flush=True)
    except Exception as problem:  # every check gets its turn
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        print(f"not ok {name}: {text[:600]}", flush=True)
        return False
    else:
        print(f"ok {name}", flush=True)
    return True


def main():
    if os.environ.get("BROKER_NAME", "portolan") != "portolan":
        print("skip faults: they need Portolan's data folder")
        return 0
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [f for f in disk_full.CHECKS + damage.CHECKS if wanted in f.__name__.replace("_", " ")]
    try:
        return 0 if all([run(function) for function in chosen]) else 1
    finally:
        damage.Original.remove()


if __name__ == "__main__":
    sys.exit(main())
