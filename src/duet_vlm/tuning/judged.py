"""What a setting kept of the full model's answers on some questions, with bounds and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .bounds import lower_bound, upper_bound

DISCARDED_AT = 0.975  # confidence at which a setting keeps too little; nothing is promised by it


@dataclass(frozen=True)
class Judged:
    """How one setting did on some questions, in their order.

    Attributes:
        kept: (n,) 0 to 1, what it has right; whether it agrees with the full model, where that is the measure.
        whole: (n,) the same of the full model.
        cost: (n,) what its answers cost, in any unit.
        whole_cost: (n,) what the full model's answers cost.
        sources: the image of each question.
        margins: (n,) the lead of its first tokens; None where nobody asked.
    """

    kept: np.ndarray
    whole: np.ndarray
    cost: np.ndarray
    whole_cost: np.ndarray
    sources: Sequence[str]
    margins: np.ndarray | None = None

    def guarded(self, threshold: float) -> Judged:
        """The same where an answer whose lead is below the threshold is given again by the full model."""
        if not threshold or self.margins is None:
            return self
        again = self.margins < threshold
        kept, cost = np.where(again, self.whole, self.kept), self.cost + again * self.whole_cost
        return replace(self, kept=kept, cost=cost)

    @property
    def share(self) -> float:
        """What is kept of the full model's, on these questions; 0 where that has nothing right."""
        whole = float(self.whole.sum())
        return float(self.kept.sum()) / whole if whole else 0.0


@dataclass(frozen=True)
class Asked:
    """What is asked of the settings.

    Attributes:
        share: of the full model's answers that is to be kept.
        confidence: of the promise.
        thresholds: of the guard, from the largest to the smallest; 0 is none.
        seed: of the split and the draws.
    """

    share: float
    confidence: float = 0.9
    thresholds: tuple[float, ...] = (0.0,)
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """A setting at a threshold on some questions: the share that it kept and its bounds.

    `cost` is the mean one, as a share of the full model's; `again` is the share of answers that are given again.
    """

    name: str
    threshold: float
    questions: int
    share: float
    lower: float
    upper: float
    cost: float
    again: float = 0.0


def seen_of(name: str, judged: Judged, threshold: float, asked: Asked) -> Seen:
    """What a setting at a threshold kept."""
    one = judged.guarded(threshold)
    if not len(one.kept):
        return Seen(name, threshold, 0, 0.0, 0.0, 1.0, 0.0)
    low = lower_bound(one.kept, one.whole, one.sources, asked.confidence, asked.seed)
    high = upper_bound(one.kept, one.whole, one.sources, DISCARDED_AT, asked.seed)
    again = 0.0 if one.margins is None else float((one.margins < threshold).mean())
    cost = float(one.cost.sum() / one.whole_cost.sum())
    return Seen(name, threshold, len(one.kept), one.share, low, high, cost, again)


def point_of(name: str, judged: Judged, asked: Asked) -> Seen:
    """A setting at the smallest threshold at which it keeps what was asked on these questions, else at the largest."""
    good = [threshold for threshold in asked.thresholds if judged.guarded(threshold).share >= asked.share]
    return seen_of(name, judged, min(good, default=max(asked.thresholds)), asked)
