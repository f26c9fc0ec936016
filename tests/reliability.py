"""Counts how fault-injection tests end: `python tests/reliability.py` prints one table.

A case is a test that is marked `case(group, ending)`. It passes only where the case ends as it
should: "right" (the result equals an oracle's), "reported" (an error that names the argument or the
file, says what is wrong with it, and leaves everything as it was) or "flagged" (a stated fallback,
with a warning or a word in the result). A test that fails counts under "failed".
"""

import collections
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ENDINGS = ("right", "reported", "flagged", "failed")


class Count:
    """A plugin of pytest that remembers which case ended how."""

    def __init__(self):
        self.cases, self.endings = {}, {}

    def pytest_collection_modifyitems(self, items):
        self.cases = {item.nodeid: item.get_closest_marker("case") for item in items}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.endings[report.nodeid] = "failed"
        elif report.when == "call" and report.passed:
            self.endings.setdefault(report.nodeid, self.cases[report.nodeid].args[1])

    def table(self):
        """Markdown: a row a group."""
        rows = collections.defaultdict(collections.Counter)
        for case, ending in self.endings.items():
            for group in (self.cases[case].args[0], "all"):
                rows[group][ending] += 1
        lines = [("cases of", "cases", *ENDINGS), ("---",) * (2 + len(ENDINGS))]
        for group in sorted(rows, key=lambda group: (group == "all", group)):
            counts = [rows[group][ending] for ending in ENDINGS]
            lines.append((group, sum(counts), *counts))
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main(arguments):
    """Run the marked tests, all or those of the given files; returns pytest's exit code."""
    os.chdir(TESTS.parent)
    count = Count()
    code = pytest.main(["-q", "-m", "case and not slow", *arguments], plugins=[count])
    print(f"\n{count.table()}")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
