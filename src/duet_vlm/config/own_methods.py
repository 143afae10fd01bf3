"""Methods of one's own: a function gets a name, which configs, presets and commands know from then on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..errors import DuetError, shown
from . import registry
from .choices import CHOICES, Query
from .drops import Drop
from .registry import RANKINGS, SCHEDULES, STAGE1, STAGE1_TAKES, Ranking, Stage1Method
from .schedule import Schedule
from .values import check_flag, is_number, is_whole

_NAME = re.compile("[a-z][a-z0-9_.-]{0,39}")
_SHARE = re.compile("[0-9]{1,4}/[0-9]{1,4}")
_RESERVED = ("none", "saved", "settings", "duet-plus")
AVERAGES = ("always", "contextual", "pool", "never")


def register_stage1(
    name: str,
    function: Callable[..., Any],
    *,
    paper: str = "",
    contextual: float | str = 0,
    scored: bool = False,
    discards: bool = False,
    averages: Literal["always", "contextual", "pool", "never"] = "never",
    whole_videos: bool = False,
) -> None:
    """Give a stage 1 method of your own a name: for `DuetConfig(merging=name)`, presets, budgets and every command.

    Registering a name again replaces the method, except one of this package. In a package, call it where the module is
    imported, and name the module as an entry point of the group `duet_vlm.methods`: the `duet` command then finds it.

    Args:
        name: lower case letters, digits, "-", "_" and "."; up to 40.
        function: `(encoded, dominant, contextual, cluster_width) -> Merge`, which retains `dominant + contextual`
            tokens of every image; see `duet_vlm.stage1.Encoded` and `duet_vlm.stage1.Merge`.
        paper: its arXiv id.
        contextual: the share of contextual tokens in a budget, from 0 to below 1, a number or a fraction as "1/6".
        scored: whether the dominant tokens are the best by `encoded.scores`, so that `diverse` has a meaning.
        discards: whether it leaves tokens out, so that `rest` has a meaning.
        averages: when one token stands for several, so that `proportional` has a meaning: "always", with "contextual"
            tokens, with a "pool" (contextual tokens, and a cluster width above 1), or "never".
        whole_videos: whether it is shown all frames of a video together (`encoded.frames`) instead of one at a time,
            and may keep more of one than of another.

    Returns:
        Nothing; the name is known from then on.

    Raises:
        DuetError: a name that is taken or not possible, or something that cannot be such a function.

    Example:
        >>> from duet_vlm import DuetConfig, register_stage1
        >>> from duet_vlm.demo.model import load
        >>> from duet_vlm.stage1 import selected
        >>> def longest(encoded, dominant, contextual, cluster_width):
        ...     best = encoded.features.norm(dim=-1).argsort(dim=1, descending=True, stable=True)
        ...     return selected(encoded, best[:, : dominant + contextual])
        >>> register_stage1("longest", longest, discards=True)
        >>> model, _ = load()
        >>> DuetConfig.preset("longest+duet", model=model, keep=0.2).merging
        'longest'
    """
    _check_name(name)
    if not registry.is_function(function):
        raise DuetError(f"stage 1 method {shown(function)} is no function: give one that takes an Encoded.")
    registry.check_takes("stage 1 method", function, STAGE1_TAKES)
    _check_paper(paper)
    if not _is_share(contextual):
        raise DuetError(f"contextual {shown(contextual)} must be a share from 0 to below 1, as 0.25 or '1/4'.")
    check_flag("scored", scored)
    check_flag("discards", discards)
    check_flag("whole_videos", whole_videos)
    if not (isinstance(averages, str) and averages in AVERAGES):
        raise DuetError(f"averages {shown(averages)} is unknown: choose one of {', '.join(AVERAGES)}.")
    STAGE1[name] = Stage1Method(
        name=name,
        function=function,
        paper=paper,
        contextual=contextual if isinstance(contextual, str) else float(contextual),
        scored=scored,
        discards=discards,
        averages=averages,
        whole_videos=whole_videos,
    )


def register_stage2(
    name: str,
    ranking: Callable[..., Any] | str,
    *,
    paper: str = "",
    ratios: Mapping[int | str, float | None] | None = None,
    query: Query = "salient",
    rank_before: bool = False,
    debias: bool = False,
) -> None:
    """Give a stage 2 method of your own a name: for presets, budgets, commands, and `DuetConfig(ranking=name)`.

    Registering a name again replaces the method, except one of this package.

    Args:
        name: as in `register_stage1`.
        ranking: `(inputs) -> (B, n)`, floating scores of which the highest are kept, or a bool set with as many tokens
            of every image as `inputs.limits` says; see `duet_vlm.stage2.ranking.RankingInputs`. Or the name of a
            ranking that there is, for a schedule alone.
        paper: its arXiv id.
        ratios: drop layer -> keep ratio behind a stage 1: a layer is a number, or a share of the depth as "3/4"; a
            ratio of None is the family's own. By default as `duet`: "1/2" and "3/4" with the family's ratios.
        query: whose attention ranks, as in `DuetConfig`.
        rank_before: whether the layer just run ranks, instead of the next one.
        debias: whether its scores are attention that uses `inputs.average`, so that `debias` has a meaning.

    Returns:
        Nothing; the name is known from then on.

    Raises:
        DuetError: a name that is taken or not possible, something that cannot be such a function, or no such drops.

    Example:
        >>> from duet_vlm import DuetConfig, register_stage2
        >>> from duet_vlm.demo.model import load
        >>> def nearest(inputs):
        ...     mean = inputs.questions.mean(1, keepdim=True)
        ...     return -(inputs.hidden - mean).norm(dim=-1)
        >>> register_stage2("nearest", nearest, query="all", ratios={"1/4": 0.5, "1/2": 0.25})
        >>> model, _ = load()
        >>> DuetConfig.preset("duet+nearest", model=model, keep=0.2).ranking
        'nearest'
    """
    _check_name(name)
    _check_paper(paper)
    if not (isinstance(query, str) and query in CHOICES["query"]):
        raise DuetError(f"query {shown(query)} is unknown: choose one of {', '.join(CHOICES['query'])}.")
    check_flag("rank_before", rank_before)
    check_flag("debias", debias)
    row = registry.ranking_method(ranking)
    if not isinstance(ranking, str):
        row = Ranking(name=name, function=ranking, paper=paper, debias=debias)
    keep_ratios = SCHEDULES["duet"].ratios if ratios is None else _checked(ratios)
    RANKINGS[row.name] = row
    SCHEDULES[name] = Schedule(
        name=name, paper=paper, ratios=keep_ratios, ranking=row.name, query=query, rank_before=rank_before
    )


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DuetError(
            f"method name {shown(name)} is not possible: give up to 40 lower case letters, digits and '-', '_', '.'."
        )
    if name in _RESERVED or name in registry.BUILT_IN:
        raise DuetError(f"method name {name!r} is taken by duet-vlm itself: give another one.")


def _check_paper(paper: Any) -> None:
    if not isinstance(paper, str):
        raise DuetError(f"paper {shown(paper)} must be an arXiv id, as '2602.18846', or ''.")


def _is_share(value: Any) -> bool:
    """Whether it is a number from 0 to below 1, or such a fraction as a text."""
    if not isinstance(value, str):
        return is_number(value) and 0 <= value < 1
    above, _, below = value.partition("/")
    return bool(_SHARE.fullmatch(value)) and int(above) < int(below)


def _checked(ratios: Any) -> dict[int | str, float | None]:
    if not isinstance(ratios, Mapping) or not ratios:
        raise DuetError(f"ratios {shown(ratios)} must map drop layers to keep ratios, as {{'1/2': 0.5, '3/4': 0.25}}.")
    for where, ratio in ratios.items():
        if not (is_whole(where, 1) or (isinstance(where, str) and _is_share(where) and int(where.partition("/")[0]))):
            raise DuetError(
                f"drop layer {shown(where)} in ratios must be a number from 1, or a share of the depth such as '3/4'."
            )
        if ratio is not None:
            Drop(1, ratio)  # refuses what is no keep ratio
    if sum(ratio is None for ratio in ratios.values()) > 2:
        raise DuetError("ratios has None more than twice, and a family has two ratios of its own: give numbers.")
    return {
        where if isinstance(where, str) else int(where): None if ratio is None else float(ratio)
        for where, ratio in ratios.items()
    }
