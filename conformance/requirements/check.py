"""Holds requirements/mqtt.toml against the list of statements and against the tests that it names."""

import ast
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEAST = 0.95
# The statements of each version: section and range of numbers.
STATEMENTS = {
    "3.1.1": (141, """1.5.3:1-3 2.2.2:1-2 2.3.1:1-7 3.1.0:1-2 3.1.2:1-24 3.1.3:1-11 3.1.4:1-5 3.2.0:1-1 3.2.2:1-6 3.3.1:1-12 3.3.2:1-3
        3.3.4:1-1 3.3.5:1-2 3.6.1:1-1 3.8.1:1-1 3.8.3:1-4 3.8.4:1-6 3.9.3:1-2 3.10.1:1-1 3.10.3:1-2 3.10.4:1-6 3.12.4:1-1 3.14.1:1-1
        3.14.4:1-3 4.1.0:1-2 4.3.1:1-1 4.3.2:1-2 4.3.3:1-2 4.4.0:1-1 4.5.0:1-2 4.6.0:1-6 4.7.1:1-3 4.7.2:1-1 4.7.3:1-4 4.8.0:1-2
        6.0.0:1-4 7.0.0:1-2 7.1.1:1-1 7.1.2:1-1"""),
    "5.0": (251, """1.5.4:1-3 1.5.5:1-1 1.5.7:1-1 2.1.3:1-1 2.2.1:2-6 2.2.2:1-1 3.1.0:1-2 3.1.2:1-30 3.1.3:1-12 3.1.4:1-6 3.2.0:1-2
        3.2.2:1-22 3.3.1:1-13 3.3.2:1-20 3.3.4:1-10 3.4.2:1-3 3.5.2:1-3 3.6.1:1-1 3.6.2:1-3 3.7.2:1-3 3.8.1:1-1 3.8.3:1-5 3.8.4:1-8
        3.9.2:1-2 3.9.3:1-2 3.10.1:1-1 3.10.3:1-2 3.10.4:1-6 3.11.2:1-2 3.11.3:1-2 3.12.4:1-1 3.14.0:1-1 3.14.1:1-1 3.14.2:1-4
        3.14.4:1-3 3.15.1:1-1 3.15.2:1-3 4.1.0:1-2 4.2:1-1 4.3.1:1-1 4.3.2:1-5 4.3.3:1-13 4.4.0:1-2 4.5.0:1-2 4.6.0:1-6 4.7.0:1-1
        4.7.1:1-2 4.7.2:1-1 4.7.3:1-4 4.8.2:1-6 4.9.0:1-3 4.12.0:1-7 4.12.1:1-2 4.13.1:1-1 4.13.2:1-1 6.0.0:1-4"""),
}  # fmt: skip


def wanted(version):
    """The ids of a version."""
    count, text = STATEMENTS[version]
    found = []
    for section, first, last in re.findall(r"([\d.]+):(\d+)-(\d+)", text):
        found += [f"MQTT-{section}-{number}" for number in range(int(first), int(last) + 1)]
    assert len(found) == count, f"{version} has {count} statements, the list {len(found)}"
    return found


def each_statement_is_there_once(rows):
    for version in STATEMENTS:
        got = sorted(row["id"] for row in rows if row["version"] == version)
        missing, more = set(wanted(version)) - set(got), [one for one in got if got.count(one) > 1 or one not in wanted(version)]
        assert not missing and not more, f"{version}: missing {sorted(missing)}, too many {more}"
    assert all(row["version"] in STATEMENTS for row in rows), "a version that there is not"


def each_row_is_complete(rows):
    for row in rows:
        assert row["who"] in ("server", "client", "both") and row["says"], row
        assert bool(row.get("tests")) != bool(row.get("why_not")), f"{row['id']} has tests or says why not"


def each_test_exists(rows):
    texts = {}
    for row in rows:
        for test in row.get("tests", ()):
            path, _, name = test.partition("::")
            if path not in texts:
                assert (ROOT / path).is_file(), f"{row['id']}: no file {path}"
                texts[path] = (ROOT / path).read_text()
            word = {".rs": "fn", ".py": "def"}[Path(path).suffix]
            assert re.search(rf"^\s*(async )?{word} {name}\(", texts[path], re.M), f"{row['id']}: no test {test}"


def the_rules_name_the_same_statements(rows):
    """Each check of mqtt/*_rules.py names its statements itself; both lists agree."""
    told = {(row["version"], row["id"], test) for row in rows for test in row.get("tests", ()) if "_rules.py" in test}
    named = set()
    for path in sorted((HERE.parent / "mqtt").glob("*_rules.py")):
        for function in ast.parse(path.read_text()).body:
            for call in getattr(function, "decorator_list", ()):
                for key in getattr(call, "keywords", ()):
                    version = {"v3": "3.1.1", "v5": "5.0"}.get(key.arg)
                    for number in key.value.value.split() if version else ():
                        named.add((version, f"MQTT-{number}", f"conformance/mqtt/{path.name}::{function.name}"))
    assert told == named, f"only in mqtt.toml {sorted(told - named)[:5]}, only in the rules {sorted(named - told)[:5]}"


def enough_is_tested(rows):
    for version in (*STATEMENTS, "both"):
        mine = [row for row in rows if version in ("both", row["version"])]
        # What a server can be held to: not the duties of clients, nor those under a condition that is not given.
        held = [row for row in mine if not row.get("why_not", "").startswith(("client duty", "not applicable"))]
        tested = [row for row in held if row.get("tests")]
        share = len(tested) / len(held)
        print(f"# MQTT {version}: {len(tested)} of {len(held)} statements tested ({share:.1%}), {len(mine) - len(held)} bind clients alone or do not apply")
        for row in held:
            if not row.get("tests") and version != "both":
                print(f"#   {row['id']}: {row['why_not']}")
        assert share >= LEAST, f"{version}: {share:.1%} tested"


def main():
    rows = tomllib.loads((HERE / "mqtt.toml").read_text())["statement"]
    failed = 0
    for body in (each_statement_is_there_once, each_row_is_complete, each_test_exists, the_rules_name_the_same_statements, enough_is_tested):
        name = body.__name__.replace("_", " ")
        try:
            body(rows)
            print(f"ok {name}", flush=True)
        except AssertionError as problem:
            failed += 1
            print(f"not ok {name}: {problem}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
