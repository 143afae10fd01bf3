"""A method fitted to a budget: the count of stage 1, or the ratios of a stage 2 alone, that average to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..errors import DuetError
from .budget import tokens_per_layer
from .methods import PUBLISHED, PUBLISHED_SHARES, Fields
from .registry import SCHEDULES, STAGE1
from .schedule import Schedule
from .settings import Settings

LARGE_IMAGE = 2**16  # tokens: an image that is large enough for any count


@dataclass(frozen=True, kw_only=True)
class BudgetSolver:
    """A method to be fitted to a budget on a decoder.

    Attributes:
        layers: of the decoder, over which a budget is averaged.
        droppable: the first layers of it, over which a schedule spreads its drops.
    """

    name: str
    stage1: str
    stage2: str
    layers: int
    droppable: int
    keep_ratios: tuple[float, float]

    @property
    def schedule(self) -> Schedule:
        return SCHEDULES[self.stage2]

    @property
    def contextual(self) -> Fraction:
        """Return the share of contextual tokens."""
        return Fraction(STAGE1[self.stage1].contextual)

    @property
    def _is_published(self) -> bool:
        """Whether it is the authors' own method, on a decoder where drops can stand as they had them."""
        return (self.stage1, self.stage2) == ("duet", "duet") and self.droppable == self.layers

    def stage2_settings(self, ratios: Mapping[int, float] | None = None) -> Fields:
        """Return the schedule's settings, with its own ratios or others."""
        if self.stage2 == "none":
            return {}
        ratios = self.schedule.at(self.droppable, self.keep_ratios) if ratios is None else ratios
        return {"drops": self.schedule.drops(ratios), **self.schedule.settings}

    def stage1_settings(self, entering: int) -> Fields:
        contextual = min(round(entering * self.contextual), entering - 1)
        settings = {"dominant": entering - contextual, "contextual": contextual}
        return settings if self.stage1 == "duet" else settings | {"merging": self.stage1}

    def covering(self, share: float) -> Fields:
        """Return the settings that keep of every image what covers a share of it, at most all of it.

        Raises:
            DuetError: no stage 1, or one that does not choose one token after another.
        """
        if self.stage1 == "none":
            raise DuetError(
                f"coverage {share:g} is for stage 1, and {self.name} has none: put one before it, as in "
                f"scope+{self.stage2}."
            )
        return {"dominant": 1.0, "merging": self.stage1, "coverage": share} | self.stage2_settings()

    def counts(self, budget: float, visual_tokens: int) -> Fields:
        """Find the settings for images of `visual_tokens`."""
        if self._is_published:
            for (whole, layers, average), settings in PUBLISHED.items():
                enough = settings["dominant"] + settings["contextual"] <= visual_tokens
                if layers == self.layers and abs(average - budget) <= 0.5 and enough and whole in (None, visual_tokens):
                    return settings
        if self.stage1 == "none":
            return self._ratios(budget, visual_tokens)
        if STAGE1[self.stage1].at == "pixels":
            return self._smaller_image(budget, visual_tokens)
        stage_2 = self.stage2_settings()
        return self._closest(budget, visual_tokens, lambda n: self.stage1_settings(n) | stage_2, 2, visual_tokens)

    def counts_of_any_image(self, budget: float) -> Fields:
        """Find counts for images whose size is not known."""
        if self.stage1 == "none":
            raise DuetError(
                f"{self.name} keeps fractions of an image's tokens: give the budget as keep=, or the image's grid= too."
            )
        return self.counts(budget, LARGE_IMAGE)

    def shares(self, keep: float) -> Fields:
        """Find fractions, which suit images of any size."""
        if self._is_published:
            for (layers, share), settings in PUBLISHED_SHARES.items():
                if layers == self.layers and abs(share - keep) < 1e-6:
                    return settings
        if self.stage1 == "none":
            return self._ratios(keep * LARGE_IMAGE, LARGE_IMAGE)
        stage_2 = self.stage2_settings()
        costs = tokens_per_layer(Settings(**stage_2), LARGE_IMAGE, self.layers)
        entering = keep * LARGE_IMAGE * self.layers / sum(costs)
        if entering > 1:
            raise DuetError(
                f"{self.name} cannot meet a budget of {keep:g} of the tokens here: with {self.layers} layers it "
                f"reaches at most {keep / entering:g}; choose a smaller budget or another method."
            )
        contextual = entering * float(self.contextual)
        settings = self.stage1_settings(2) | {"dominant": entering - contextual, "contextual": contextual or 0}
        return settings | stage_2

    def _ratios(self, budget: float, visual_tokens: int) -> Fields:
        """Find, for a stage 2 alone, the power of the schedule's ratios that meets the budget."""
        ratios = self._early_enough(
            self.schedule.at(self.droppable, self.keep_ratios), budget * self.layers / visual_tokens
        )
        highest = max(ratios.values(), default=0.0)
        # with one ratio to choose a step is a token; with several, they are to move one by one
        steps = visual_tokens * (8 if sum(ratio > 0 for ratio in ratios.values()) > 1 else 1)

        def ratio(published: float, wanted: float) -> float:
            if published in (0, highest):
                return wanted if published else 0.0
            return float(wanted ** (math.log(published) / math.log(highest)))

        def settings(step: int) -> Fields:
            return self.stage2_settings({layer: ratio(r, step / steps) for layer, r in ratios.items()})

        return self._closest(budget, visual_tokens, settings, 0, steps)

    def _early_enough(self, ratios: dict[int, float], full_layers: float) -> dict[int, float]:
        """The drop layers, or where none of their ratios can meet the budget, earlier ones in the same proportion.

        A schedule that first drops at L/4 cannot average to less than a quarter of the tokens. For a smaller budget,
        all drop layers are halved until the budget lies between the least and the most that the schedule can average
        to. A schedule whose last ratio is 0 may have such a narrow range that two halvings jump over the budget. Then
        the factor is chosen for which the budget lies nearest to the middle of the range.

        Args:
            full_layers: the budget, as the number of layers that could hold the whole image.
        """

        def scaled(k: int) -> dict[int, float]:
            return {max(1, layer * k // self.layers): ratio for layer, ratio in ratios.items()}

        def off(candidate: dict[int, float]) -> float:
            """How far the budget is from the middle of a candidate's range: 0 in the middle, 1 at either end."""
            first, last = min(candidate), max(candidate)
            end = last if candidate[last] == 0 else self.layers
            return abs(2 * full_layers - first - end) / max(end - first, 1e-9)

        if not ratios:
            return ratios
        halved = [scaled(self.layers >> i) for i in range(self.layers.bit_length())]
        within = [candidate for candidate in halved if off(candidate) <= 1]
        return within[0] if within else min(map(scaled, range(self.layers, 0, -1)), key=off)

    def _smaller_image(self, budget: float, visual_tokens: int) -> Fields:
        """The number of rows and columns, neither twice the other, whose average is closest; the squarest of these."""
        side, stage_2 = math.isqrt(visual_tokens), self.stage2_settings()
        shapes = [(r, c) for r in range(1, side + 1) for c in range(1, side + 1) if max(r, c) <= 2 * min(r, c)]
        averages = {n: self._average(stage_2, n) for n in {r * c for r, c in shapes}}
        self._check_reach(budget, visual_tokens, min(averages.values()), max(averages.values()))
        best = min(shapes, key=lambda shape: (abs(averages[shape[0] * shape[1]] - budget), abs(shape[0] - shape[1])))
        return {self.stage1: best, **stage_2}

    def _average(self, settings: Fields, visual_tokens: int) -> float:
        return sum(tokens_per_layer(Settings(**settings), visual_tokens, self.layers)) / self.layers

    def _check_reach(self, budget: float, visual_tokens: int, minimum: float, maximum: float) -> None:
        if not minimum - 0.5 <= budget <= maximum + 0.5:
            raise DuetError(
                f"{self.name} cannot meet a budget of {budget:g} tokens here: with {visual_tokens} visual tokens "
                f"and {self.layers} layers it reaches {minimum:g} to {maximum:g}; choose a budget in that range or "
                "another method."
            )

    def _closest(
        self, budget: float, visual_tokens: int, settings: Callable[[int], Fields], minimum: int, maximum: int
    ) -> Fields:
        """The settings whose average is closest to the budget; `settings(n)` costs more with every n."""

        def average(n: int) -> float:
            return self._average(settings(n), visual_tokens)

        self._check_reach(budget, visual_tokens, average(minimum), average(maximum))
        low = last_that(lambda n: average(n) <= budget, minimum, maximum)
        best = min((low, min(low + 1, maximum)), key=lambda n: abs(average(n) - budget))
        if abs(average(best) - budget) > 0.5:
            raise DuetError(
                f"{self.name} cannot meet a budget of {budget:g} tokens within half a token on {self.layers} layers: "
                f"the closest is {average(best):g}."
            )
        return settings(best)


def last_that(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last of the numbers from `low` to below `high` where `holds` is true: it is at `low`, and later no more."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
