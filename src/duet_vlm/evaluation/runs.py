"""What is compared: methods at budgets, or any named configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.budget_rule import NONE, SAVED, WITHOUT_BUDGET, Budget, is_file
from ..errors import DuetError
from ..inputs.choice import check_choices
from ..presets import DuetConfig, preset, saved_config, stages
from .records import Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FULL = NONE


@dataclass(frozen=True)
class Run:
    """One row of the table.

    Attributes:
        method: its name.
        config: what is applied.
        budget: visual tokens per layer on average (above 1) or a fraction of them, as it was asked for; None for none.
    """

    method: str
    config: DuetConfig
    budget: float | None = None

    @property
    def key(self) -> tuple[str, float | None]:
        """What tells it from the other runs."""
        return self.method, self.budget

    @property
    def label(self) -> str:
        """For people: "duet 0.33"."""
        return self.method if self.budget is None else f"{self.method} {self.budget:g}"

    def described(self) -> dict[str, Any]:
        """JSON-able."""
        return {"method": self.method, "budget": self.budget, "config": self.config.to_dict()}


def full_model() -> Run:
    """The model uncompressed, which every run is compared with."""
    return Run(FULL, DuetConfig())


def saved(config: PreTrainedConfig) -> Run:
    """The settings that a model's config brings, as `duet train` and `save_pretrained` leave them there.

    Raises:
        ValueError: there are none, or they cannot be read.
    """
    if getattr(config, "duet", None) is None:
        raise DuetError(
            "method 'saved' needs settings in the model's config.json (duet), and there are none: give a model that "
            "was saved with them, or a method and a budget."
        )
    return Run(SAVED, saved_config(config))


def runs_of(
    config: PreTrainedConfig, methods: Sequence[str], tokens: Sequence[float], keep: Sequence[float],
    coverage: Sequence[float] = (),
) -> tuple[list[Run], list[Skipped]]:  # fmt: skip
    """The full model and every method at every budget, in the order given; and what of it there is not.

    Args:
        config: the model's transformers config.
        methods: names that `presets.preset` knows; "saved" is what the model's config brings, at its own budget.
        tokens: budgets in visual tokens, or
        keep: budgets as fractions, or
        coverage: shares of each image that are to be covered; "coverage" then stands behind a method's name.

    Raises:
        ValueError: budgets of both kinds or none, something twice, or no method that can run.
    """
    check_choices(methods, tokens, keep, getattr(config, "duet", None) is not None, False, coverage)
    compressed = [method for method in methods if method != FULL]
    runs, problems = [full_model()], list[Skipped]()
    for method in compressed:
        if method == SAVED:
            runs.append(saved(config))
            continue
        if is_file(method):
            runs.append(Run(method, DuetConfig.load(method)))
            continue
        try:
            stages(method)
        except DuetError as error:
            problems.append(Skipped(str(error)))
            continue
        budgets = [Budget()] if method in WITHOUT_BUDGET else Budget.several(tokens, keep, coverage)
        for budget in budgets:
            try:
                settings = preset(
                    method, model=config, tokens=budget.tokens, keep=budget.keep, coverage=budget.coverage
                )
                named = method if budget.coverage is None else f"{method} coverage"
                runs.append(Run(named, settings, budget.value))
            except DuetError as error:
                at = method if budget.value is None else f"{method} at {budget.value:g}"
                problems.append(Skipped(f"{at}: {error}"))
    if compressed and len(runs) == 1:
        raise DuetError(str(problems[0]))
    return runs, problems
