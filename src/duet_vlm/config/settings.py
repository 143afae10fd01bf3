"""What to do: the recipe of a compression, as plain data. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ..errors import DuetError, closest, shown
from . import registry
from .choices import CHOICES, Combine, Positions, Query
from .drops import Drop, as_drops, set_fields
from .values import as_count, as_sides, check_flag, is_whole
from .versions import VERSION, check_version

_LANGUAGE = re.compile("[A-Za-z]{2,8}")


@dataclass(frozen=True)
class Settings:
    """Both stages of DUET-VLM (arXiv 2602.18846), as written in the paper's terms.

    It never changes: `dataclasses.replace` makes another. Numbers may be numpy's; they are kept as Python's.

    Args:
        dominant: stage 1, K1: visual tokens kept unchanged per image (int), or a fraction of the image's tokens
            (float in (0, 1]). For encoders with a CLS token that enters the sequence (LLaVA), CLS is one of them.
            None leaves the encoder alone.
        contextual: stage 1, K2: merged tokens per image, int or fraction; 0 for none.
        cluster_width: stage 1, w: a pool of `w * K2` tokens is merged into the K2 contextual ones.
        drops: stage 2: drop layers and keep ratios, a list or a tuple; kept as a tuple, by layer.
        query: whose attention ranks the visual tokens: "salient" words and the last token, "all" text tokens after
            the first image, or the "last" instruction token.
        positions: after tokens are gone, "renumber" the rest without gaps or "keep" their places; "auto" is what the
            published method does for the family.
        merging: the stage 1 method: "duet", "visionzip" (global clusters, anchors in image order), "random", "uniform",
            "pool", "prumerge", "divprune", "holov", a name given to `duet_vlm.register_stage1`, or a function of your
            own `(encoded, dominant, contextual, cluster_width) -> Merge`. Methods without contextual tokens take
            `dominant + contextual` as one number. A function that is registered is kept as its name; another one works
            in `apply`, and cannot be saved.
        language: language of the questions, for their salient words.
        combine: a contextual token is its anchor plus the mean of its members ("anchor+mean", as published), or the
            "mean" of them all.
        diverse: choose dominant tokens by score times distance to those already chosen, instead of by score alone.
        rest: one of the contextual tokens is the mean of every token that the method discards.
        proportional: a merged token gets the attention of all it stands for: log s is added to its attention logits in
            every decoder layer and in stage 2's ranking, s being the tokens merged into it (ToMe, arXiv 2210.09461,
            proportional attention). Needs sdpa or eager attention, where it costs a mask.
        ranking: how stage 2 ranks visual tokens: "attention" of the query tokens, "sparsevlm" (that of query tokens
            which the image concerns), "keynorm", "random", a name given to `duet_vlm.register_stage2`, or a function of
            your own `(inputs) -> (B, n)` scores or chosen tokens, under the same rule as `merging`.
        debias: divide stage 2's attention by what the same queries would pay, in the same place, to the average visual
            token of the sample: what is left is due to content.
        downsample: (rows, columns) of patches to which the image is shrunk before the encoder; a stage 1 of its own, so
            `dominant` stays None.

    Raises:
        DuetError: a value that is not possible, or two that contradict each other.
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

    def __post_init__(self) -> None:
        set_fields(self, drops=as_drops(self.drops))
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed):
                raise DuetError(f"{name} {shown(value)} is unknown: choose one of {', '.join(allowed)}.")
            set_fields(self, **{name: allowed[allowed.index(value)]})
        for name, method in (("merging", self.stage1_method), ("ranking", self.ranking_method)):
            set_fields(self, **{name: method.name or method.function})  # a function that has a name is kept as that
        for name in ("diverse", "rest", "proportional", "debias"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.language, str) or not _LANGUAGE.fullmatch(self.language):
            raise DuetError(f"language {shown(self.language)} must be the code of one, for example 'en'.")
        if not is_whole(self.cluster_width, 1):
            raise DuetError(f"cluster_width {shown(self.cluster_width)} must be a whole number of at least 1.")
        set_fields(self, language=self.language[:], cluster_width=int(self.cluster_width))
        if self.dominant is not None:
            set_fields(self, dominant=as_count("dominant", self.dominant, least=1))
        set_fields(self, contextual=as_count("contextual", self.contextual, least=0))
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
        """Whether stage 1 is on."""
        return self.dominant is not None or self.downsample is not None

    @property
    def _averages(self) -> bool:
        """Whether stage 1 makes one token of several."""
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
        """Whether any drop needs a ranking: keeping none or all does not."""
        return any(0 < d.keep < 1 for d in self.drops)

    @property
    def savable(self) -> bool:
        """Whether every method in it has a name."""
        return isinstance(self.merging, str) and isinstance(self.ranking, str)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `model.config.duet` and JSON: dicts, lists, numbers, texts, bools and None.

        Raises:
            DuetError: a function that has no name, which could not be read back.
        """
        for name, register in (("merging", "register_stage1"), ("ranking", "register_stage2")):
            if not isinstance(getattr(self, name), str):
                raise DuetError(
                    f"{name} {registry.called(getattr(self, name))} has no name to be saved under: give it one with "
                    f"duet_vlm.{register}, and make the config again."
                )
        return {"version": VERSION} | self._values()

    def _values(self) -> dict[str, Any]:
        data = {one.name: getattr(self, one.name) for one in fields(self)}
        data["drops"] = [asdict(drop) for drop in self.drops]
        return data if self.downsample is None else data | {"downsample": list(self.downsample)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, or any mapping of fields to values; missing fields have their defaults.

        Raises:
            DuetError: no mapping, a version that is newer than this package, a field that is unknown, or a value as in
                `DuetConfig`.
        """
        if not isinstance(data, Mapping):
            raise DuetError(f"a DuetConfig is read from a mapping of its fields to values, not from {shown(data)}.")
        check_version(data.get("version", VERSION))
        given = {name: value for name, value in data.items() if name != "version"}
        check_names(given)
        return cls(**given)


def check_names(settings: Mapping[Any, Any]) -> None:
    """Raises DuetError for a setting that `DuetConfig` does not have, with the nearest one."""
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            near = closest(name, known)
            listed = ", ".join(known) if near is None else f"{near}, which is the nearest name"
            raise DuetError(f"setting {shown(name)} is unknown: a DuetConfig has {listed}.")
