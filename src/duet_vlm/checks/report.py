"""What a check found: one line per promise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

HOLDS, FAILS, NOT_CHECKED = "holds", "fails", "not checked"


@dataclass(frozen=True)
class Line:
    """One promise.

    Attributes:
        promise: its name.
        result: "holds", "fails" or "not checked".
        measured: the largest difference, in log-probabilities or in what the note says; None where nothing was measured
            or where it is no finite number.
        allowed: what it may be.
        note: what was compared, or why the line fails or was not checked.
        trace: the stack trace of an exception, or None.
    """

    promise: str
    result: str
    measured: float | None = None
    allowed: float | None = None
    note: str = ""
    trace: str | None = None


@dataclass(frozen=True)
class Report:
    """All lines, and what they were measured on.

    Attributes:
        about: model, versions, device, dtype, attention, the settings that were tried.
        lines: in the order they were checked.
    """

    about: dict[str, Any]
    lines: list[Line]

    @property
    def holds(self) -> bool:
        """Whether no line fails."""
        return not self.failing

    @property
    def failing(self) -> list[Line]:
        return [line for line in self.lines if line.result == FAILS]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**self.about, "holds": self.holds, "lines": [asdict(line) for line in self.lines]}

    def __str__(self) -> str:
        named = f"{self.about['model']} on {self.about['device']} in {self.about['dtype']}"
        return "\n".join([named, *(f"{line.result}: {line.promise}. {line.note}".rstrip() for line in self.lines)])


def judged(promise: str, measured: float, allowed: float, note: str = "", fault: str = "") -> Line:
    """A line that holds where `measured` is within `allowed` and there is no `fault`, which is said before the note."""
    finite = measured if math.isfinite(measured) else None
    if finite is None and not fault:
        fault = "not a finite number"
    if measured > allowed and not fault:
        fault = f"{measured:.2g} instead of at most {allowed:.2g}" if allowed else f"{measured:.2g} instead of 0"
    said = "; ".join(part for part in (fault, note) if part)
    return Line(promise, FAILS if fault else HOLDS, finite, allowed, said)
