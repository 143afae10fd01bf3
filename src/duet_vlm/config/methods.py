"""The methods by name: how a stage 1 splits its tokens, where a stage 2 drops, what is published. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ..errors import DuetError, shown
from .settings import Drop

Fields = dict[str, Any]

# stage 1 method -> the contextual share of its tokens
STAGE_1: dict[str, Fraction] = {
    "duet": Fraction(1, 6),
    "visionzip": Fraction(5, 32),  # 162 : 30, arXiv 2412.04467
    "random": Fraction(0),
    "uniform": Fraction(0),
    "pool": Fraction(0),
    "prumerge": Fraction(3, 4),  # outliers are about 6% of an image, all that PruMerge+ keeps 25%, arXiv 2403.15388
    "divprune": Fraction(0),
    "holov": Fraction(0),
    "downsample": Fraction(0),
}


@dataclass(frozen=True)
class Schedule:
    """Stage 2 as its authors set it.

    Attributes:
        ratios: layers of the decoder, late -> {drop layer: keep ratio}, as used behind a stage 1. Alone, the method
            drops at the same layers, with a power of the ratios that meets the budget.
        settings: fields of `DuetConfig`.
        rank_before: whether the layer just run ranks, instead of the next one.
    """

    ratios: Callable[[int, tuple[float, float]], dict[int, float]]
    settings: Fields = field(default_factory=dict)
    rank_before: bool = False

    def at(self, layers: int, late: tuple[float, float]) -> dict[int, float]:
        """The ratios on a decoder so shallow that drop layers vanish or fall together, too."""
        return {layer: ratio for layer, ratio in self.ratios(layers, late).items() if 1 <= layer < layers}

    def drops(self, ratios: Mapping[int, float]) -> list[Drop]:
        return [Drop(layer, ratio, layer - 1 if self.rank_before else None) for layer, ratio in ratios.items()]


STAGE_2: dict[str, Schedule] = {
    "duet": Schedule(lambda layers, late: {layers // 2: late[0], 3 * layers // 4: late[1]}),
    # arXiv 2410.17247
    "pyramiddrop": Schedule(
        lambda layers, late: {layers // 4: 0.5, layers // 2: 0.25, 3 * layers // 4: 0.125}, {"query": "last"}
    ),
    # arXiv 2403.06764
    "fastv": Schedule(lambda layers, late: {min(2, layers - 1): 0.5}, {"query": "last"}, rank_before=True),
    # arXiv 2410.04417: layers 2, 6 and 15 of 32, 300, 200 and 110 of 576 tokens
    "sparsevlm": Schedule(
        lambda layers, late: {
            max(1, round(2 * layers / 32)): 0.52,
            max(1, round(6 * layers / 32)): 0.35,
            max(1, round(15 * layers / 32)): 0.19,
        },
        {"query": "all", "ranking": "sparsevlm"},
    ),
    # arXiv 2406.11430 leaves the first two layers whole
    "keynorm": Schedule(lambda layers, late: {min(2, layers - 1): 0.5}, {"query": "last", "ranking": "keynorm"}),
    "random": Schedule(
        lambda layers, late: {layers // 2: late[0], 3 * layers // 4: late[1]}, {"query": "last", "ranking": "random"}
    ),
}

# plain name -> its stage 1 and its stage 2
NAMES: dict[str, tuple[str, str]] = {
    "duet": ("duet", "duet"),
    "duet-plus": ("duet", "duet"),
    **{name: (name, "none") for name in STAGE_1 if name != "duet"},
    **{name: ("none", name) for name in STAGE_2 if name not in ("duet", "random")},
    "none": ("none", "none"),
}

# name -> what it changes of its stages: merges all that is not dominant, and dominant tokens that differ
CHANGES: dict[str, Fields] = {"duet-plus": {"merging": "visionzip", "diverse": True}}


def stages(name: str) -> tuple[str, str]:
    """The stage 1 and the stage 2 that a method's name stands for; "none" for a stage that is off.

    Raises:
        DuetError: an unknown name, or something that is none.
    """
    if isinstance(name, str) and name in NAMES:
        return NAMES[name]
    first, plus, second = name.partition("+") if isinstance(name, str) else ("", "", "")
    if not plus:
        raise DuetError(
            f"method {shown(name)} is unknown: choose one of {', '.join(NAMES)}, or join two, as in visionzip+fastv."
        )
    for stage, given, known in ((1, first, [*STAGE_1, "none"]), (2, second, [*STAGE_2, "none"])):
        if given not in known:
            raise DuetError(
                f"method {shown(name)} is unknown: {shown(given)} is no stage {stage}, which is one of "
                f"{', '.join(known)}."
            )
    return first, second


def _published(dominant: float, contextual: float, ratios: Mapping[int, float]) -> Fields:
    drops = [Drop(layer, ratio) for layer, ratio in ratios.items()]
    return {"dominant": dominant, "contextual": contextual, "drops": drops}


_LLAVA, _QWEN = {16: 0.5, 24: 0.0}, {14: 0.5, 21: 0.25}

# (visual tokens, None for any, decoder layers, budget) -> the authors' own settings of DUET-VLM
PUBLISHED: dict[tuple[int | None, int, float], Fields] = {
    (576, 32, 192): _published(300, 7, _LLAVA),
    (576, 32, 128): _published(170, 35, _LLAVA),
    (576, 32, 64): _published(85, 17, _LLAVA),
    # Video-LLaVA: 960 and 136 for 8 frames
    (256, 32, 120): _published(160, 32, _LLAVA),
    (256, 32, 17): _published(22, 5, _LLAVA),
    # Qwen2.5-VL-7B: 640 after stage 1
    (None, 28, 440): _published(540, 100, _QWEN),
}
# (decoder layers, fraction) -> the same for images of any size. Qwen2.5-VL-7B: 70% after stage 1
PUBLISHED_SHARES: dict[tuple[int, float], Fields] = {
    (28, 0.4375): _published(0.65, 0.05, {7: 0.75, 14: 0.5, 21: 0.25}),
}
