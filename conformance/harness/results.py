"""Counts what passed, failed and was skipped, and says so at the end."""

import re


class Results:
    """The tally of one run, per suite."""

    def __init__(self):
        self.suites = {}
        self.failures = []

    def add(self, suite, passed=0, failed=0, skipped=0):
        row = self.suites.setdefault(suite, [0, 0, 0])
        for i, count in enumerate((passed, failed, skipped)):
            row[i] += count

    def fail(self, suite, text):
        """One failure that no check of the suite reported itself."""
        self.add(suite, failed=1)
        self.failures.append(f"{suite}: {text}")
        print(f"not ok {suite}: {text}", flush=True)

    def skip(self, suite, why):
        """The whole suite is left out because something it needs could not be installed."""
        self.add(suite, skipped=1)
        print(f"skip {suite}: {why}", flush=True)

    def check_line(self, suite, line):
        """Counts one line of a suite's output, if it is a check."""
        if line.startswith("ok "):
            self.add(suite, passed=1)
        elif line.startswith("not ok "):
            self.add(suite, failed=1)
            self.failures.append(f"{suite}: {line[7:].strip()}")
        elif line.startswith("skip "):
            self.add(suite, skipped=1)

    def cargo_line(self, line):
        """Counts one line of `cargo test`."""
        found = re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", line)
        if found:
            self.add("cargo test", *map(int, found.groups()))
        elif re.match(r"test .* \.\.\. FAILED", line):
            self.failures.append(f"cargo test: {line.split()[1]}")

    @property
    def totals(self):
        return tuple(map(sum, zip(*self.suites.values(), strict=True))) if self.suites else (0, 0, 0)

    def report(self):
        """The summary; its very last line is the one scripts look at."""
        print("\nsuite                 passed  failed  skipped")
        for name, (passed, failed, skipped) in self.suites.items():
            print(f"{name:<20}  {passed:6}  {failed:6}  {skipped:7}")
        for failure in self.failures:
            print(f"FAILED {failure}")
        passed, failed, skipped = self.totals
        print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
        return 1 if failed or not passed else 0
