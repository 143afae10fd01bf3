"""Which settings are tried: methods at budgets, each also with its drops at half the depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config.budget import after_drops
from ..config.fitting import LARGE_IMAGE
from ..config.settings import Settings
from ..evaluation.records import Skipped
from ..evaluation.runs import FULL, Run, runs_of
from ..families import facts_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

METHODS = ("duet-plus", "scope+duet", "visionzip")
KEEP = (0.5, 0.33, 0.22, 0.16, 0.11, 0.08, 0.05)
EARLY = " early"  # behind a method's name: the same budget, with drops at half the depth


def candidates(
    config: PreTrainedConfig, methods: Sequence[str] = METHODS, keep: Sequence[float] = KEEP
) -> tuple[list[Run], list[Skipped]]:
    """Every method at every budget, and where it drops behind a stage 1, the same with its drops at half the depth.

    What drops earlier lets more tokens in for the same average. Which is better depends on the depth at which a model
    reads its image, so both are tried.

    Args:
        config: the model's transformers config.
        methods: names that `DuetConfig.preset` knows.
        keep: budgets as fractions of the visual tokens.

    Returns:
        The runs, without the full model; and what of it there is not.

    Raises:
        DuetError: no method that can run.
    """
    named, problems = runs_of(config, methods, [], keep)
    facts = facts_of(config)
    runs = list[Run]()
    for run in (one for one in named if one.method != FULL):
        runs.append(run)
        early = with_early_drops(run.config, facts.layers, facts.visual_tokens)
        if early is not None and all(early != other.config for other in runs):
            runs.append(Run(run.method + EARLY, early, run.budget))
    return runs, problems


def with_early_drops(config: Any, layers: int, visual_tokens: int | None) -> Any:
    """The same settings with every drop at half its layer, and as many more tokens of stage 1 as that saves.

    Args:
        config: a `DuetConfig`.
        layers: of the decoder.
        visual_tokens: of an image; None where images differ.

    Returns:
        Another config whose layer average is the same, to a token or so; None where there is none: without both
        stages, or where an image has not so many tokens.
    """
    if config.dominant is None or not config.drops or config.audio_keep is not None:
        return None
    # a rank_at of its own would stand behind its drop
    drops = [replace(drop, layer=(drop.layer + 1) // 2, rank_at=None) for drop in config.drops]
    if len({drop.layer for drop in drops}) < len(drops) or drops == list(config.drops):
        return None
    share = _average(config.drops, layers) / _average(drops, layers)
    dominant, contextual = (_times(count, share) for count in (config.dominant, config.contextual))
    most = 1 if isinstance(dominant, float) else visual_tokens
    if most is not None and dominant + contextual > most:
        return None
    return replace(config, dominant=dominant, contextual=contextual, drops=drops)


def _average(drops: Sequence[Any], layers: int) -> float:
    """Tokens of a layer on average, of one image that is large enough for every ratio."""
    return sum(after_drops(Settings(drops=drops), LARGE_IMAGE, layers)) / layers


def _times(count: int | float, share: float) -> int | float:
    return round(count * share) if isinstance(count, int) else count * share
