"""What `diagnose` returns: findings, the worst first, and the checks that ran."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnviz import figures
from cnnviz.diagnosis.report import page, report_html
from cnnviz.results import Result

SEVERITIES = ("fault", "suspicion", "note")
SCHEMA = 1  # of `Diagnosis.to_dict`


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Finding(Result):
    """One thing that is wrong, or may be, with a model or its data.

    Attributes:
        severity: "fault", "suspicion" or "note".
        kind: "nan", "images", "inputs", "collapse", "imbalance", "overfitting", "calibration",
            "dead filters", "label errors", "duplicates", "leakage" or "mistakes".
        sentence: What was found.
        remedy: What to do about it.
        call: Python code that shows more.
        number, low, high: What was measured, and its 95 % confidence interval if it is an estimate;
            else None.
        cost: The accuracy that it may cost, or by which the accuracy is overstated, in 0..1; None
            if that is not known.
        indices: (n,) int, its images in `split`; empty if it is about all, or data are shuffled.
        files: Their files, where they are known.
        split: "validation", "train" or "test".
        figure: A figure, or None.
    """

    severity: str
    kind: str
    sentence: str
    remedy: str
    call: str
    number: float | None = None
    low: float | None = None
    high: float | None = None
    cost: float | None = None
    indices: Sequence[int] = ()
    files: Sequence[str] = ()
    split: str = "validation"
    figure: figures.DescribedFigure | None = dataclasses.field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.severity.upper()}, {self.kind}: {self.sentence} {self.remedy}"

    def plot(self) -> figures.DescribedFigure:
        """The figure of the finding."""
        if self.figure is None:
            raise ValueError(f"a finding of kind '{self.kind}' has no figure; print it")
        return self.figure


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Check(Result):
    """One check: what it asked, what it found in one sentence, and what it does not cover.

    `ran` is False if it could not run; `result` then says why. `seconds` is how long it took.
    """

    name: str
    result: str
    limits: str
    ran: bool
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Result):
    """What is wrong with a model and its data: findings, the worst first, and all checks.

    Attributes:
        findings: Each a `Finding`: faults, suspicions, notes; causes first, then by cost.
        checks: Each a `Check`, in the order in which they ran.
        model_name: The model's name.
        n_images: The number of images of each split.
    """

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    model_name: str
    n_images: dict[str, int]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are faults."""
        return tuple(one for one in self.findings if one.severity == "fault")

    @property
    def verdict(self) -> str:
        """Two sentences: how many faults, suspicions and notes, and how many checks ran on what."""
        kinds = [one.severity for one in self.findings]
        counts = [figures.counted(kinds.count(kind), kind) for kind in SEVERITIES]
        failed = sum(not check.ran for check in self.checks)
        images = " and ".join(f"{n:,} {name} images" for name, n in self.n_images.items())
        text = f"{counts[0]}, {counts[1]} and {counts[2]}. {len(self.checks) - failed} checks of "
        text += f"model '{self.model_name}' ran on {images}"
        return text + (f"; {failed} could not run." if failed else ".")

    def __str__(self) -> str:
        checks = [f"- {check.name}: {check.result}" for check in self.checks]
        return "\n".join([self.verdict, "", *map(str, self.findings), "", "Checks:", *checks])

    def _repr_html_(self) -> str:
        return report_html(self)

    def _columns(self):
        names = [field.name for field in dataclasses.fields(Finding) if field.name != "figure"]
        return {name: [getattr(one, name) for one in self.findings] for name in names}

    def to_dict(self) -> dict[str, Any]:
        """All but the figures, for `json.dumps`; "schema" changes when a key does."""
        rows = json.loads(self.to_frame().to_json(orient="records", double_precision=15))
        checks = [dataclasses.asdict(check) for check in self.checks]
        about = {"schema": SCHEMA, "model": self.model_name, "images": self.n_images}
        return about | {"verdict": self.verdict, "findings": rows, "checks": checks}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one page of HTML that holds everything, or JSON if `path` ends in ".json"."""
        path = Path(path)
        if path.suffix not in (".html", ".json"):
            raise ValueError(f"`path` (='{path}') must end in '.html' or '.json'")
        is_page = path.suffix == ".html"
        text = page(self) if is_page else json.dumps(self.to_dict(), indent=1)
        path.write_text(text, encoding="utf-8")
