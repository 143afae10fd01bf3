"""What to do: the recipe of a compression, as plain data. Imports nothing of ours but the errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import DuetError

MERGING = ("duet", "visionzip", "random", "uniform", "pool", "prumerge", "divprune", "holov")
COMBINE = ("anchor+mean", "mean")
RANKING = ("attention", "sparsevlm", "keynorm", "random")
QUERIES = ("salient", "all", "last")
POSITIONS = ("auto", "renumber", "keep")
CHOICES = {"query": QUERIES, "positions": POSITIONS, "merging": MERGING, "combine": COMBINE, "ranking": RANKING}
SCORED = ("duet", "visionzip", "prumerge")  # methods whose dominant tokens are the best by score
DISCARDING = ("duet", "random", "uniform", "divprune", "holov")  # methods that leave tokens out
AVERAGING = ("pool", "prumerge")  # methods whose every token is a mean


@dataclass(frozen=True)
class Drop:
    """Stage 2: entering decoder layer `layer`, keep the best `floor(keep * M)` visual tokens of each image.

    Args:
        layer: the decoder layer before which tokens are dropped, 1 to L - 1; it counts the layers already run.
        keep: keep ratio, 0 to 1, relative to M, the number of visual tokens after stage 1; ratios never compound.
        rank_at: the layer whose weights rank the tokens, when it is not `layer` itself (FastV: the layer just run).
    """

    layer: int
    keep: float
    rank_at: int | None = None

    def __post_init__(self) -> None:
        if not _is_int(self.layer) or self.layer < 1:
            raise DuetError(f"drop layer {self.layer!r} is not possible: it must be a whole number of at least 1.")
        if not _is_number(self.keep) or not 0 <= self.keep <= 1:
            raise DuetError(f"keep ratio {self.keep!r} at drop layer {self.layer} must be a number from 0 to 1.")
        if self.rank_at is not None and not (_is_int(self.rank_at) and 0 <= self.rank_at <= self.layer):
            raise DuetError(
                f"rank_at {self.rank_at!r} must be a layer from 0 to the drop layer {self.layer}, or None for it."
            )

    @property
    def ranking_layer(self) -> int:
        return self.layer if self.rank_at is None else self.rank_at


@dataclass
class DuetConfig:
    """Both stages of DUET-VLM (arXiv 2602.18846), as written in the paper's terms.

    Args:
        dominant: stage 1, K1: visual tokens kept unchanged per image (int), or a fraction of the image's tokens
            (float in (0, 1]). For encoders with a CLS token that enters the sequence (LLaVA), CLS is one of them.
            None leaves the encoder alone.
        contextual: stage 1, K2: merged tokens per image, int or fraction; 0 for none.
        cluster_width: stage 1, w: a pool of `w * K2` tokens is merged into the K2 contextual ones.
        drops: stage 2: drop layers and keep ratios.
        query: whose attention ranks the visual tokens: "salient" words and the last token, "all" text tokens after
            the first image, or the "last" instruction token.
        positions: after tokens are gone, "renumber" the rest without gaps or "keep" their places; "auto" is what the
            published method does for the family.
        merging: the stage 1 method, a name of `merging.METHODS`: "duet", "visionzip" (global clusters, anchors in image
            order), "random", "uniform", "pool", "prumerge", "divprune" or "holov". Methods without contextual tokens
            take `dominant + contextual` as one number.
        language: language of the questions, for their salient words.
        combine: a contextual token is its anchor plus the mean of its members ("anchor+mean", as published), or the
            "mean" of them all.
        diverse: choose dominant tokens by score times distance to those already chosen, instead of by score alone.
        rest: one of the contextual tokens is the mean of every token that the method discards.
        proportional: a merged token gets the attention of all it stands for: log s is added to its attention logits in
            every decoder layer and in stage 2's ranking, s being the tokens merged into it (ToMe, arXiv 2210.09461,
            proportional attention). Needs sdpa or eager attention, where it costs a mask.
        ranking: how stage 2 scores visual tokens, a name of `ranking.RANKINGS`: "attention" of the query tokens,
            "sparsevlm" (that of query tokens which the image concerns), "keynorm" or "random".
        debias: divide stage 2's attention by what the same queries would pay, in the same place, to the average visual
            token of the sample: what is left is due to content.
        downsample: (rows, columns) of patches to which the image is shrunk before the encoder; a stage 1 of its own, so
            `dominant` stays None.
    """

    dominant: int | float | None = None
    contextual: int | float = 0
    cluster_width: int = 4
    drops: list[Drop] = field(default_factory=list)
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
        self.drops = sorted((_as_drop(d) for d in self.drops), key=lambda d: d.layer)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise DuetError(f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(allowed)}.")
        for name in ("diverse", "rest", "proportional", "debias"):
            if not isinstance(getattr(self, name), bool):
                raise DuetError(f"{name} {getattr(self, name)!r} must be True or False.")
        if not _is_int(self.cluster_width) or self.cluster_width < 1:
            raise DuetError(f"cluster_width {self.cluster_width!r} must be a whole number of at least 1.")
        if self.dominant is not None:
            _check_count("dominant", self.dominant, least=1)
        _check_count("contextual", self.contextual, least=0)
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
            raise DuetError(
                f"merging {self.merging!r} discards nothing, so rest has no meaning: use it with "
                f"{', '.join(DISCARDING)}."
            )
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
            self.downsample = _as_grid(self.downsample)
            if self.dominant is not None:
                raise DuetError("downsample is a stage 1 of its own: leave dominant None, or downsample None.")

    @property
    def merges(self) -> bool:
        """Whether stage 1 is on."""
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
        """Whether any drop needs a ranking: keeping none or all does not."""
        return any(0 < d.keep < 1 for d in self.drops)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `model.config.duet` and JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DuetConfig:
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise DuetError(f"setting {key!r} is unknown: a DuetConfig has {', '.join(known)}.")
        return cls(**data)

    @classmethod
    def preset(
        cls, name: str, *, model: Any = None, tokens: float | None = None, keep: float | None = None, **changes: Any
    ) -> DuetConfig:
        """A published method at a budget of visual tokens, averaged over the decoder's layers; see `presets.preset`."""
        from .presets import preset

        return preset(name, model=model, tokens=tokens, keep=keep, **changes)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_drop(value: Any) -> Drop:
    if isinstance(value, Drop):
        return value
    if isinstance(value, Mapping):
        return Drop(**value)
    raise DuetError(f"{value!r} is no drop: write Drop(layer, keep), for example Drop(16, 0.5).")


def _as_grid(value: Any) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(sides) != 2 or not all(_is_int(side) and side >= 1 for side in sides):
        raise DuetError(f"downsample {value!r} must be (rows, columns) of patches, each a whole number of at least 1.")
    return sides


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, float):
        if not 0 < value <= 1:
            raise DuetError(f"{name} {value!r} is a fraction and must be in (0, 1]: give an int to count tokens.")
    elif not _is_int(value) or value < least:
        raise DuetError(f"{name} {value!r} must be an int of at least {least}, or a float fraction in (0, 1].")
