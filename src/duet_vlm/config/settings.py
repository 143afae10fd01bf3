"""What to do: the recipe of a compression, as plain data. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ..errors import DuetError, closest, shown
from .values import as_count, as_sides, check_flag, is_number, is_whole

MERGING = ("duet", "visionzip", "random", "uniform", "pool", "prumerge", "divprune", "holov")
COMBINE = ("anchor+mean", "mean")
RANKING = ("attention", "sparsevlm", "keynorm", "random")
QUERIES = ("salient", "all", "last")
POSITIONS = ("auto", "renumber", "keep")
CHOICES = {"query": QUERIES, "positions": POSITIONS, "merging": MERGING, "combine": COMBINE, "ranking": RANKING}
SCORED = ("duet", "visionzip", "prumerge")  # methods whose dominant tokens are the best by score
DISCARDING = ("duet", "random", "uniform", "divprune", "holov")  # methods that leave tokens out
_LANGUAGE = re.compile("[A-Za-z]{2,8}")
AVERAGING = ("pool", "prumerge")  # methods whose every token is a mean


@dataclass(frozen=True)
class Drop:
    """One drop of stage 2: from decoder layer `layer` on, the best `floor(keep * M)` visual tokens of an image stay.

    M is the number of visual tokens of the image after stage 1 (docs/method.md, 2.3).

    Args:
        layer: the decoder layer at whose entrance tokens are dropped: a whole number from 1 to L - 1, which is how
            many layers have run before.
        keep: the keep ratio, from 0 to 1. It is always a fraction of M, never of what an earlier drop left. 0 drops
            every visual token.
        rank_at: the layer whose weights rank the tokens, where it is not `layer` (FastV ranks by the layer just run).

    Raises:
        DuetError: a value is not possible.

    Example:
        >>> from duet_vlm import Drop
        >>> Drop(16, 0.5)
        Drop(layer=16, keep=0.5, rank_at=None)
    """

    layer: int
    keep: float
    rank_at: int | None = None

    def __post_init__(self) -> None:
        layer, keep, rank_at = self.layer, self.keep, self.rank_at
        if not is_whole(layer, 1):
            raise DuetError(f"drop layer {shown(layer)} is not possible: it must be a whole number of at least 1.")
        if not is_number(keep) or not 0 <= keep <= 1:
            raise DuetError(f"keep ratio {shown(keep)} at drop layer {layer} must be a number from 0 to 1.")
        if rank_at is not None and not (is_whole(rank_at, 0) and rank_at <= layer):
            raise DuetError(f"rank_at {shown(rank_at)} must be a layer from 0 to the drop layer {layer}, or None.")
        _set(self, layer=int(layer), keep=abs(float(keep)), rank_at=None if rank_at is None else int(rank_at))

    @property
    def ranking_layer(self) -> int:
        """The decoder layer whose weights rank the tokens: `rank_at`, or else `layer`."""
        return self.layer if self.rank_at is None else self.rank_at


@dataclass(frozen=True)
class Settings:
    """What a compression does: both stages of DUET-VLM (arXiv 2602.18846), in the paper's terms (docs/method.md).

    `DuetConfig.preset` makes one for a budget; this is how to make one by hand. It is plain data and never changes:
    `dataclasses.replace(config, query="last")` makes another. Two are equal if all settings are. Numbers may be
    numpy's; they are kept as Python's. `DuetConfig()` does nothing.

    Args:
        dominant: stage 1, K1: how many visual tokens of an image are kept unchanged, as a number of tokens (int) or a
            fraction of the image's (float in (0, 1]). Where a CLS token enters the sequence (LLaVA-1.5), it is one of
            them. None switches stage 1 off.
        contextual: stage 1, K2: into how many tokens others are merged, int or float likewise; 0 merges nothing.
        cluster_width: stage 1, w: `w * K2` runners-up are merged into the K2 contextual tokens.
        drops: stage 2: where visual tokens are dropped, and how many are kept; a list or tuple of `Drop`, kept as a
            tuple in the order of layers. Empty switches stage 2 off.
        query: stage 2: the text tokens whose attention ranks visual tokens. "salient": those of the salient words and
            the last one; "all": every one after the first image; "last": the last one.
        positions: "renumber" gives the tokens that are left positions without gaps, "keep" leaves them as they were,
            "auto" does what the published method does for the family.
        merging: the method of stage 1, by name (docs/methods.md). Methods without contextual tokens take
            `dominant + contextual` as one number.
        language: the language of the questions, as a code ("en"), for their salient words.
        combine: what a contextual token is. "anchor+mean", as published: the anchor plus the mean of its members;
            "mean": the mean of all of them.
        diverse: True chooses dominant tokens by their score times their distance to those already chosen.
        rest: True makes one of the contextual tokens the mean of every token that the method discards.
        proportional: True gives a merged token the attention of all s tokens that it stands for: log s is added to
            its attention logits, in every decoder layer and in the ranking (proportional attention of ToMe, arXiv
            2210.09461). It needs sdpa or eager attention, where it costs a mask.
        ranking: the method by which stage 2 scores visual tokens, by name: "attention", "sparsevlm", "keynorm" or
            "random" (docs/methods.md).
        debias: True divides the attention in stage 2's ranking by what the average visual token would get in the same
            place, so that content alone counts.
        downsample: (rows, columns) of patches to which an image is shrunk before the encoder. It is a stage 1 of its
            own, so `dominant` stays None.

    Raises:
        DuetError: a value is not possible, or two of them contradict each other.

    Example:
        >>> from duet_vlm import Drop, DuetConfig
        >>> config = DuetConfig(dominant=300, contextual=7, drops=[Drop(16, 0.5), Drop(24, 0)])
        >>> config.query, config.drops[1]
        ('salient', Drop(layer=24, keep=0.0, rank_at=None))
        >>> DuetConfig.from_dict(config.to_dict()) == config
        True
    """

    dominant: int | float | None = None
    contextual: int | float = 0
    cluster_width: int = 4
    drops: Sequence[Drop] = ()
    query: str = "salient"
    positions: str = "auto"
    merging: str = "duet"
    language: str = "en"
    combine: str = "anchor+mean"
    diverse: bool = False
    rest: bool = False
    proportional: bool = False
    ranking: str = "attention"
    debias: bool = False
    downsample: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _set(self, drops=_as_drops(self.drops))
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed):
                raise DuetError(f"{name} {shown(value)} is unknown: choose one of {', '.join(allowed)}.")
            _set(self, **{name: allowed[allowed.index(value)]})
        for name in ("diverse", "rest", "proportional", "debias"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.language, str) or not _LANGUAGE.fullmatch(self.language):
            raise DuetError(f"language {shown(self.language)} must be the code of one, for example 'en'.")
        if not is_whole(self.cluster_width, 1):
            raise DuetError(f"cluster_width {shown(self.cluster_width)} must be a whole number of at least 1.")
        _set(self, language=self.language[:], cluster_width=int(self.cluster_width))
        if self.dominant is not None:
            _set(self, dominant=as_count("dominant", self.dominant, least=1))
        _set(self, contextual=as_count("contextual", self.contextual, least=0))
        if self.dominant is None and self.contextual:
            raise DuetError(f"contextual {self.contextual!r} needs stage 1: give dominant too, or contextual=0.")
        self._check_options()
        for before, after in zip(self.drops, self.drops[1:], strict=False):
            if before.layer == after.layer:
                raise DuetError(f"drop layer {after.layer} is given twice: give each drop layer once.")
            if after.keep > before.keep:
                raise DuetError(
                    f"keep ratios cannot grow, but layer {after.layer} keeps {after.keep:g} after layer {before.layer} "
                    f"kept {before.keep:g}: both are fractions of the tokens after stage 1."
                )
            if after.ranking_layer <= before.layer:
                raise DuetError(
                    f"the drop at layer {after.layer} cannot rank at layer {after.ranking_layer}: layer {before.layer} "
                    f"drops tokens after that, so rank at {before.layer + 1} or later."
                )

    def _check_options(self) -> None:
        if self.diverse and self.merging not in SCORED:
            raise DuetError(f"diverse has no meaning for merging {self.merging!r}: use it with {' or '.join(SCORED)}.")
        if self.rest and self.merging not in DISCARDING:
            listed = ", ".join(DISCARDING)
            raise DuetError(f"merging {self.merging!r} discards nothing, so rest has no meaning: use it with {listed}.")
        if self.rest and not self.contextual:
            raise DuetError("rest takes one of the contextual tokens: give contextual of at least 1.")
        if self.proportional and not self._averages:
            raise DuetError(
                "proportional weighs merged tokens, and this config merges none: give contextual of at least 1 and "
                "cluster_width of at least 2, or rest=True, or merging 'pool' or 'prumerge'."
            )
        if self.debias and self.ranking not in ("attention", "sparsevlm"):
            raise DuetError(
                f"debias has no meaning for ranking {self.ranking!r}: use it with 'attention' or 'sparsevlm'."
            )
        if self.downsample is not None:
            _set(self, downsample=as_sides("downsample", self.downsample, 2, "(rows, columns)"))
            if self.dominant is not None:
                raise DuetError("downsample is a stage 1 of its own: leave dominant None, or downsample None.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settings):
            return NotImplemented
        # 1 is one token and 1.0 is all of them, which Python calls equal
        return repr(self.to_dict()) == repr(other.to_dict())

    @property
    def merges(self) -> bool:
        """Whether stage 1 is on: it merges, selects or downsamples."""
        return self.dominant is not None or self.downsample is not None

    @property
    def _averages(self) -> bool:
        """Whether stage 1 makes one token of several."""
        if self.dominant is None:
            return False
        if self.rest or self.merging in AVERAGING:
            return True
        if self.merging == "visionzip":
            return self.contextual > 0
        # the others' pool at width 1 is the anchors alone
        return self.merging in ("duet", "random") and self.contextual > 0 and self.cluster_width > 1

    @property
    def ranks(self) -> bool:
        """Whether stage 2 needs a ranking: a drop that keeps none or all of the tokens does not."""
        return any(0 < d.keep < 1 for d in self.drops)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data for `model.config.duet` and JSON: dicts, lists, numbers, texts, bools, None."""
        data = asdict(self) | {"drops": [asdict(drop) for drop in self.drops]}
        return data if self.downsample is None else data | {"downsample": list(self.downsample)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a config from what `to_dict` gave, or from any mapping of settings to values.

        Args:
            data: the settings by name; those that are missing have their defaults.

        Raises:
            DuetError: it is no mapping, a setting is unknown, or a value is not possible.
        """
        if not isinstance(data, Mapping):
            raise DuetError(f"a DuetConfig is read from a mapping of its fields to values, not from {shown(data)}.")
        check_names(data)
        return cls(**data)


def check_names(settings: Mapping[Any, Any]) -> None:
    """Raises DuetError for a setting that `DuetConfig` does not have, with the nearest one."""
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            near = closest(name, known)
            listed = ", ".join(known) if near is None else f"{near}, which is the nearest name"
            raise DuetError(f"setting {shown(name)} is unknown: a DuetConfig has {listed}.")


def _set(frozen: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def _as_drops(value: Any) -> tuple[Drop, ...]:
    if not isinstance(value, (list, tuple)):
        raise DuetError(f"drops {shown(value)} must be a list of drops, for example [Drop(16, 0.5)].")
    return tuple(sorted(map(_as_drop, value), key=lambda drop: drop.layer))


def _as_drop(value: Any) -> Drop:
    if isinstance(value, Drop):
        return value
    if not isinstance(value, Mapping):
        raise DuetError(f"{shown(value)} is no drop: write Drop(layer, keep), for example Drop(16, 0.5).")
    known = [f.name for f in fields(Drop)]
    wrong = [f"an unknown {shown(key)}" for key in value if key not in known]
    wrong += [f"no {key}" for key in ("layer", "keep") if key not in value]
    if wrong:
        raise DuetError(f"the drop {shown(value)} has {wrong[0]}: a drop is layer, keep and, if wanted, rank_at.")
    return Drop(**value)
