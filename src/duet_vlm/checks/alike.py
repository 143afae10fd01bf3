"""Promises that two ways of computing the same give the same, within what rounding explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..engine.trace import Trace
from ..presets import DuetConfig
from .kept import Differs, Kept, compared
from .report import NOT_CHECKED, Line, judged
from .state import unchanged
from .subject import Subject, largest


@dataclass
class WayResult:
    """One prompt's numbers in one way: float32 log-probabilities, and what was kept, None where nobody looked."""

    values: Tensor
    kept: Kept | None = None


Pairs = list[tuple[WayResult, WayResult]]
LastTrace = Callable[[], Trace | None]
Ways = Callable[[Subject, LastTrace], Pairs]


def alike(promise: str, subject: Subject, ways: Ways, note: str = "") -> Line:
    """Run both ways in stock, which tells what rounding does here, and compressed.

    Args:
        ways: (subject, trace of the last prefill) -> pairs; the same for stock and for a compressed model.
    """
    stock = largest((a.values, b.values) for a, b in ways(subject, lambda: None))
    allowed = subject.allowed(stock)
    if stock > subject.limit:
        own = f"stock itself differs by {stock:.2g}, which is more than rounding ({subject.limit:.2g})"
        return judged(promise, stock, subject.limit, note, own)
    pairs = _compressed(subject, ways, subject.config)
    apart = [difference for difference in (compared(a.kept, b.kept) for a, b in pairs) if difference is not None]
    if not apart:
        return judged(promise, _largest(pairs), allowed, _noted(note, stock))
    worst = max(apart, key=lambda difference: difference.apart)
    if worst.apart > 2 * allowed:
        return judged(promise, worst.apart, 2 * allowed, _noted(note, stock), str(worst))
    return _without_choices(promise, subject, ways, allowed, worst, _noted(note, stock))


def _without_choices(promise: str, subject: Subject, ways: Ways, allowed: float, worst: Differs, note: str) -> Line:
    """What differs where the kept places depend on no score."""
    pairs = [(a, b) for a, b in _compressed(subject, ways, blind(subject.config)) if compared(a.kept, b.kept) is None]
    said = f"{worst}, as rounding may; compared with places that depend on no score; {note}"
    if not any(a.kept for a, _ in pairs):
        return Line(promise, NOT_CHECKED, None, allowed, f"kept places could not be held alike; {said}")
    return judged(promise, _largest(pairs), allowed, said)


def blind(config: DuetConfig) -> DuetConfig:
    """The same counts at the same layers, by choices that depend on no score."""
    changes = {"ranking": "random", "debias": False, "query": "last"}
    if config.dominant is None:
        return replace(config, **changes)  # type: ignore[arg-type]
    weighs = config.proportional and bool(config.contextual)
    stage1 = {"merging": "uniform", "diverse": False, "combine": "anchor+mean", "rest": weighs, "proportional": weighs}
    return replace(config, **changes, **stage1)  # type: ignore[arg-type]


def _compressed(subject: Subject, ways: Ways, config: DuetConfig) -> Pairs:
    with unchanged(subject.model), subject.apply(config) as handle:
        return ways(subject, lambda: handle.trace)


def _largest(pairs: Pairs) -> float:
    return largest((a.values, b.values) for a, b in pairs)


def _noted(note: str, stock: float) -> str:
    return "; ".join(part for part in (note, f"stock's own difference is {stock:.2g}") if part)
