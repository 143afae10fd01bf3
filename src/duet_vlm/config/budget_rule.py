"""A budget as a user asks for it, and which methods take none. One rule for every command and function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DuetError
from .pixelprune import NAME as PIXELPRUNE
from .values import as_share, check_budget

NONE, SAVED, SETTINGS = "none", "saved", "settings"  # method names of the rows below
WITHOUT_BUDGET = {
    NONE: "compresses nothing",
    SAVED: "brings its budget",  # with the model
    PIXELPRUNE: "keeps as much as the picture does not repeat",
    SETTINGS: "names every field itself",  # in a training file
}
FILE = ".json"  # so ends a method that is a file of settings, which `DuetConfig.save` wrote


def is_file(method: str | None) -> bool:
    """Whether a method's name is that of a file of settings."""
    return method is not None and method.endswith(FILE)


def without_budget(method: str) -> str | None:
    """Why a method takes no budget, as the end of a sentence; None where it takes one."""
    return "brings its budget" if is_file(method) else WITHOUT_BUDGET.get(method)


@dataclass(frozen=True)
class Budget:
    """A budget of one kind, or none.

    Attributes:
        tokens: visual tokens per layer, on average, or
        keep: a fraction of an image's visual tokens, in (0, 1], or
        coverage: a share of each image that its tokens are to cover, in (0, 1] (docs/methods.md).
    """

    tokens: float | None = None
    keep: float | None = None
    coverage: float | None = None

    @classmethod
    def parse(cls, method: str, tokens: Any, keep: Any, coverage: Any = None, *, needed: bool = True) -> Budget:
        """The budget that a method is asked for at.

        Args:
            method: its name; whether there is one of that name is not looked at.
            tokens, keep, coverage: as given; None for what is not.
            needed: whether a method that takes a budget must have one.

        Raises:
            DuetError: two budgets, one that no model can meet, one for a method that takes none, or none where one is
                needed.

        Example:
            >>> from duet_vlm.config.budget_rule import Budget
            >>> Budget.parse("duet", 64, None)
            Budget(tokens=64.0, keep=None, coverage=None)
        """
        check_budget(tokens, keep)
        share = None if coverage is None else as_share("coverage", coverage)
        kinds = (("tokens", tokens), ("keep", keep), ("coverage", share))
        given = [f"{name} {float(value):g}" for name, value in kinds if value is not None]
        if len(given) > 1:
            raise DuetError(f"{given[0]} and {given[1]} are both a budget: give one of them.")
        why = without_budget(method)
        if given and why is not None:
            out = "tokens= and keep=" if share is None else "coverage="
            raise DuetError(f"method {method!r} {why}: leave out {out}, or choose another.")
        if needed and not given and why is None:
            raise DuetError("there is no budget: give tokens=, an average per layer, or keep=, a fraction.")
        return cls(None if tokens is None else float(tokens), None if keep is None else float(keep), share)

    @classmethod
    def several(
        cls, tokens: Sequence[float] | None, keep: Sequence[float] | None, coverage: Sequence[float] | None = None
    ) -> list[Budget]:
        """One for each of several numbers, fractions and shares, in this order; their values are not looked at."""
        return [
            *(cls(tokens=value) for value in tokens or ()),
            *(cls(keep=share) for share in keep or ()),
            *(cls(coverage=share) for share in coverage or ()),
        ]

    @property
    def value(self) -> float | None:
        """The number, of whichever kind; None for no budget."""
        return next((one for one in (self.tokens, self.keep, self.coverage) if one is not None), None)
