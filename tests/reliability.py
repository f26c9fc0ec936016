"""Count how every case of bad luck ends: `python tests/reliability.py` prints one table.

A case is a test that is marked `case(group, ending)`. It passes only where the case ends as it
should: "right" (the result equals an oracle's), "reported" (an error that names the argument or the
file, says what is wrong with it, and leaves everything as it was) or "flagged" (a stated fallback,
with a warning or a word in the result). A test that fails counts under "failed". The pictures are
also shown to the checks that are in common use.
"""

import argparse
import collections
import os
import tempfile
from pathlib import Path

import cv2
import PIL.Image
import pytest
from picture_corpus import bad_files, good_files

import cnnviz

TESTS = Path(__file__).resolve().parent
ENDINGS = ("right", "reported", "flagged", "failed")


class Count:
    """A plugin of pytest that remembers which case ended how."""

    def __init__(self):
        self.cases, self.failed, self.skipped = {}, set(), set()

    @pytest.hookimpl(trylast=True)  # after what is not to run has been taken out
    def pytest_collection_modifyitems(self, items):
        for item in items:
            self.cases[item.nodeid] = item.get_closest_marker("case").args

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.skipped:
            self.skipped.add(report.nodeid)

    def table(self):
        """Markdown: a row a group."""
        rows = collections.defaultdict(collections.Counter)
        for case, (group, ending) in self.cases.items():
            if case not in self.skipped:
                rows[group]["failed" if case in self.failed else ending] += 1
        rows["all"] = sum(rows.values(), collections.Counter())
        lines = [("cases of", "cases", *ENDINGS), ("---",) * (2 + len(ENDINGS))]
        for group, endings in rows.items():
            counts = [endings[ending] for ending in ENDINGS]
            lines.append((group, str(sum(counts)), *map(str, counts)))
        return markdown(lines)


def markdown(lines):
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def is_jfif(path):
    return b"JFIF" in path.read_bytes()[:10]


def is_verified(path):
    try:
        with PIL.Image.open(path) as picture:
            picture.verify()
    except Exception:
        return False
    return True


def is_imread(path):
    try:
        return cv2.imread(str(path)) is not None
    except cv2.error:
        return False


def is_loaded(path):
    try:
        cnnviz.load_image(path)
    except ValueError:
        return False
    return True


CHECKS = {
    '"JFIF" in the header': is_jfif,
    "Pillow's `verify()`": is_verified,
    "`cv2.imread`": is_imread,
    "`cnnviz.load_image`": is_loaded,
}


def compare_checks():
    """Markdown: what each check lets in and throws out of the same files."""
    good = [file.data for file in good_files().values()]
    bad = [data for data, _ in bad_files().values()]
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    header = ("check", f"bad files let in, of {len(bad)}", f"good ones thrown out, of {len(good)}")
    lines = [header, ("---",) * 3]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        for name, check in CHECKS.items():
            counts = []
            for files, wrong in ((bad, True), (good, False)):
                ended = []
                for data in files:
                    path.write_bytes(data)
                    ended.append(check(path) == wrong)
                counts.append(str(sum(ended)))
            lines.append((name, *counts))
    return markdown(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the cases of minutes")
    parser.add_argument("paths", nargs="*", default=[TESTS], help="test files; all without")
    options = parser.parse_args()
    os.chdir(TESTS.parent)
    count = Count()
    chosen = "case and not slow" if options.quick else "case"
    arguments = ["-q", "--durations=0", "--durations-min=5", "-m", chosen, *map(str, options.paths)]
    code = pytest.main(arguments, plugins=[count])
    print(f"\n{count.table()}\n\n{compare_checks()}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
