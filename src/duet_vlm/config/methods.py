"""What a method's name stands for: a stage 1 and a stage 2, and the settings that were published. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DuetError, listed, shown
from .drops import Drop
from .registry import SCHEDULES, STAGE1, named

Fields = dict[str, Any]

# name -> what it changes of its stages: all that is not chosen is one token, which has its attention; places are kept
CHANGES: dict[str, Fields] = {"duet-plus": {"rest": True, "proportional": True, "positions": "keep"}}


def names() -> dict[str, tuple[str, str]]:
    """Plain name -> its stage 1 and its stage 2: both where they are of one paper, else one alone, the first first."""
    first = {name: (name, name if _both(name) else "none") for name in STAGE1 if name != "duet"}
    second = {name: ("none", name) for name in SCHEDULES if name not in STAGE1}
    return {"duet": ("duet", "duet"), "duet-plus": ("scope", "duet"), **first, **second, "none": ("none", "none")}


def _both(name: str) -> bool:
    return name in SCHEDULES and STAGE1[name].paper == SCHEDULES[name].paper != ""


def stages(name: str) -> tuple[str, str]:
    """The stage 1 and the stage 2 that a method's name stands for; "none" for a stage that is off.

    Raises:
        DuetError: an unknown name, or something that is none.
    """
    text = str(name) if isinstance(name, str) else ""
    if text in names() or (named(STAGE1, text) or named(SCHEDULES, text)) is not None:
        return names()[text]
    first, plus, second = text.partition("+")
    if not plus:
        raise DuetError(
            f"method {shown(name)} is unknown: choose one of {listed(names())}, or join two, as in visionzip+fastv."
        )
    if first != "none" and named(STAGE1, first) is None:
        raise _no_stage(name, first, 1, [*STAGE1])
    if second != "none" and named(SCHEDULES, second) is None:
        raise _no_stage(name, second, 2, [*SCHEDULES])
    return first, second


def _no_stage(name: str, part: str, stage: int, known: list[str]) -> DuetError:
    return DuetError(
        f"method {shown(name)} is unknown: {shown(part)} is no stage {stage}, which is one of {listed(known)}, none."
    )


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
