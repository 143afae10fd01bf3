"""What to do: the recipe of a compression, as plain data. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ..errors import DuetError, shown
from . import pixelprune, registry
from .choices import CHOICES, Combine, Positions, Query
from .drops import Drop, as_drops, check_order, set_fields
from .guard import check_fallback
from .per_image import check_per_image
from .values import as_count, as_share, as_sides, check_flag, check_names, is_whole
from .versions import PROMISE, VERSION, check_version, readable

_LANGUAGE = re.compile("[A-Za-z]{2,8}")


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
        merging: the method of stage 1, by name (docs/methods.md; yours by `duet_vlm.register_stage1`), or a function
            `(encoded, dominant, contextual, cluster_width) -> Merge`, which works in `apply` and cannot be saved.
            Methods without contextual tokens take `dominant + contextual` as one number.
        language: the language of the questions, as a code ("en"), for their salient words.
        combine: what a contextual token is. "anchor+mean", as published: the anchor plus the mean of its members;
            "mean": the mean of all of them.
        diverse: True chooses dominant tokens by their score times their distance to those already chosen.
        rest: True makes one of the contextual tokens the mean of every token that the method discards.
        proportional: True gives a merged token the attention of all s tokens that it stands for: log s is added to
            its attention logits, in every decoder layer and in the ranking (proportional attention of ToMe, arXiv
            2210.09461). It needs sdpa or eager attention, where it costs a mask.
        ranking: the method by which stage 2 ranks visual tokens, by name: "attention", "sparsevlm", "keynorm", "random"
            (docs/methods.md; yours by `duet_vlm.register_stage2`), or a function `(inputs) -> (B, n)` of scores or of
            chosen tokens, under the same rule.
        debias: True divides the attention in stage 2's ranking by what the average visual token would get in the same
            place, so that content alone counts.
        downsample: (rows, columns) of patches to which an image is shrunk before the encoder. It is a stage 1 of its
            own, so `dominant` stays None.
        audio_keep: how much of a sound is kept, as a fraction of its audio tokens, on average over the decoder layers;
            in both stages, at the layers of `drops` (docs/audio.md). None leaves sound alone, as text.
        audio_guides: True lets a video's sound say how much of each of its windows a drop keeps (docs/audio.md).
        coverage: stage 1 stops as soon as the mean, over all tokens of an image, of the cosine to the nearest chosen
            token is at least this share of 1 (docs/methods.md); `dominant` is then the most that an image keeps.
        coverage_floor: the least that it keeps, int or float as `dominant`.
        history: the counts of every image before the last one of a prompt are multiplied by this share.
        fallback: `generate` gives an answer again with all visual tokens where the probability of the compressed
            model's first token is ahead of the second's by less than this (docs/tune.md); 0 only notes the lead.
        pixelprune: the largest difference of two pixels, in levels of 0 to 255, at which a block of patches repeats its
            neighbour and is left out before the encoder; 0 for copies alone. `dominant` then chooses of the others.

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
    query: Query = "salient"
    positions: Positions = "auto"
    merging: str | Callable[..., Any] = "duet"
    language: str = "en"
    combine: Combine = "anchor+mean"
    diverse: bool = False
    rest: bool = False
    proportional: bool = False
    ranking: str | Callable[..., Any] = "attention"
    debias: bool = False
    downsample: tuple[int, int] | None = None
    audio_keep: float | None = None
    audio_guides: bool = False
    coverage: float | None = None
    coverage_floor: int | float = 1
    history: float | None = None
    fallback: float | None = None
    pixelprune: float | None = None

    def __post_init__(self) -> None:
        set_fields(self, drops=as_drops(self.drops))
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed):
                raise DuetError(f"{name} {shown(value)} is unknown: choose one of {', '.join(allowed)}.")
            set_fields(self, **{name: allowed[allowed.index(value)]})
        for name, method in (("merging", self.stage1_method), ("ranking", self.ranking_method)):
            set_fields(self, **{name: method.name or method.function})  # a function that has a name is kept as that
        for name in ("diverse", "rest", "proportional", "debias", "audio_guides"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.language, str) or not _LANGUAGE.fullmatch(self.language):
            raise DuetError(f"language {shown(self.language)} must be the code of one, for example 'en'.")
        if not is_whole(self.cluster_width, 1):
            raise DuetError(f"cluster_width {shown(self.cluster_width)} must be a whole number of at least 1.")
        set_fields(self, language=self.language[:], cluster_width=int(self.cluster_width))
        if self.dominant is not None:
            set_fields(self, dominant=as_count("dominant", self.dominant, minimum=1))
        set_fields(self, contextual=as_count("contextual", self.contextual, minimum=0))
        if self.dominant is None and self.contextual:
            raise DuetError(f"contextual {self.contextual!r} needs stage 1: give dominant too, or contextual=0.")
        if self.audio_keep is not None:
            set_fields(self, audio_keep=as_share("audio_keep", self.audio_keep))
        elif self.audio_guides:
            raise DuetError("audio_guides has no meaning for sound that is not compressed: give audio_keep, too.")
        self._check_options()
        check_per_image(self)
        check_fallback(self)
        beside = {name: getattr(self, name) for name in ("downsample", "dominant", "merging")}
        set_fields(self, pixelprune=pixelprune.checked(self.pixelprune, **beside))
        check_order(self.drops)

    @property
    def stage1_method(self) -> registry.Stage1Method:
        """What `merging` stands for."""
        return registry.stage1_method(self.merging)

    @property
    def ranking_method(self) -> registry.Ranking:
        """What `ranking` stands for."""
        return registry.ranking_method(self.ranking)

    def _check_options(self) -> None:
        stage1, merging = [*registry.STAGE1.values()], registry.called(self.merging)
        if self.diverse and not self.stage1_method.scored:
            listed = " or ".join(row.name for row in stage1 if row.scored)
            raise DuetError(f"diverse has no meaning for merging {merging}: use it with {listed}.")
        if self.rest and not self.stage1_method.discards:
            listed = ", ".join(row.name for row in stage1 if row.discards)
            raise DuetError(f"merging {merging} discards nothing, so rest has no meaning: use it with {listed}.")
        if self.rest and not self.contextual:
            raise DuetError("rest takes one of the contextual tokens: give contextual of at least 1.")
        if self.proportional and not self._averages:
            listed = " or ".join(repr(row.name) for row in stage1 if row.averages == "always")
            raise DuetError(
                "proportional weighs merged tokens, and this config merges none: give contextual of at least 1 and "
                f"cluster_width of at least 2, or rest=True, or merging {listed}."
            )
        if self.debias and not self.ranking_method.debias:
            listed = " or ".join(repr(row.name) for row in registry.RANKINGS.values() if row.debias)
            raise DuetError(f"debias has no meaning for ranking {registry.called(self.ranking)}: use it with {listed}.")
        if self.downsample is not None:
            set_fields(self, downsample=as_sides("downsample", self.downsample, 2, "(rows, columns)"))
            if self.dominant is not None:
                raise DuetError("downsample is a stage 1 of its own: leave dominant None, or downsample None.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settings):
            return NotImplemented
        # 1 is one token and 1.0 is all of them, which Python calls equal
        return repr(self._values()) == repr(other._values())

    @property
    def merges(self) -> bool:
        """Whether stage 1 is on: it merges, selects, downsamples or leaves out what repeats."""
        return any(one is not None for one in (self.dominant, self.downsample, self.pixelprune))

    @property
    def compresses(self) -> bool:
        """Whether anything is merged or dropped."""
        return self.merges or any(drop.keep < 1 for drop in self.drops)

    @property
    def _averages(self) -> bool:
        """Whether stage 1 makes one token of several."""
        if self.audio_keep is not None:
            return True
        if self.dominant is None:
            return False
        averages = self.stage1_method.averages
        if self.rest or averages == "always":
            return True
        if averages == "never" or not self.contextual:
            return False
        return averages == "contextual" or self.cluster_width > 1  # a pool of width 1 is the anchors alone

    @property
    def ranks(self) -> bool:
        """Whether stage 2 needs a ranking: a drop that keeps none or all of the tokens does not, but for sound."""
        return any(0 < d.keep < 1 or (d.keep < 1 and self.audio_keep is not None) for d in self.drops)

    @property
    def savable(self) -> bool:
        """Whether every method in it has a name."""
        return isinstance(self.merging, str) and isinstance(self.ranking, str)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data for `model.config.duet` and JSON: dicts, lists, numbers, texts, bools, None.

        Raises:
            DuetError: a function that has no name, which could not be read back.
        """
        for name, register in (("merging", "register_stage1"), ("ranking", "register_stage2")):
            if not isinstance(getattr(self, name), str):
                raise DuetError(
                    f"{name} {registry.called(getattr(self, name))} has no name to be saved under: give it one with "
                    f"duet_vlm.{register}, and make the config again."
                )
        return readable(self._values())

    def _values(self) -> dict[str, Any]:
        data = {one.name: getattr(self, one.name) for one in fields(self)}
        data["drops"] = [asdict(drop) for drop in self.drops]
        return data if self.downsample is None else data | {"downsample": list(self.downsample)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a config from what `to_dict` gave, or from any mapping of settings to values.

        Args:
            data: the settings by name; those that are missing have their defaults. What `duet tune` promised of them
                ("promise") is passed over.

        Raises:
            DuetError: it is no mapping, it was written by a newer version of this package, a setting is unknown, or a
                value is not possible.
        """
        if not isinstance(data, Mapping):
            raise DuetError(f"a DuetConfig is read from a mapping of its fields to values, not from {shown(data)}.")
        check_version(data.get("version", VERSION))
        settings = {name: value for name, value in data.items() if name not in ("version", PROMISE)}
        check_names(settings, [one.name for one in fields(Settings)])
        return cls(**settings)
