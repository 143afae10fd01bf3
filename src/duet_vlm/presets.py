"""Published methods by name, at any budget: name and budget -> DuetConfig (docs/method.md, Budgets)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from .config import saved
from .config.arguments import config_of
from .config.audio import AUTO, milder
from .config.budget import as_grid
from .config.budget_rule import NONE, Budget
from .config.drops import Drop
from .config.fitting import BudgetSolver
from .config.methods import CHANGES, stages
from .config.pixelprune import EXACT, NAME
from .config.registry import STAGE1
from .config.settings import Settings
from .config.values import check_budget
from .errors import DuetError, reason

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, eq=False)
class DuetConfig(Settings):
    __doc__ = Settings.__doc__

    @classmethod
    def preset(
        cls, name: str, *, model: Any = None, tokens: float | None = None, keep: float | None = None,
        coverage: float | None = None, **changes: Any,
    ) -> DuetConfig:  # fmt: skip
        """A published method at a budget of visual tokens.

        The budget is the number of visual tokens that a decoder layer processes, averaged over the layers: per image,
        per crop (LLaVA-NeXT), per tile (InternVL, SmolVLM) or per frame of a video. Text is never counted. It is met
        within half a token on any decoder, with two exceptions: fractions round down on each image, and `downsample`
        comes as near as whole rows and columns allow. Where the authors published settings for a budget, these are
        given (docs/method.md, Budgets).

        A name is that of a method ("duet", "visionzip", "pyramiddrop"); "duet-plus", the best that there is of two
        stages; or a stage 1 and a stage 2 joined by "+" ("visionzip+fastv", "random+duet", "duet+none").
        docs/methods.md lists them all. Behind a stage 1, stage 2 keeps its authors' drop layers and ratios, and the
        number of tokens that stage 1 retains meets the budget. A stage 2 alone meets it by its ratios. "pixelprune"
        takes no budget, as the picture says how much of it repeats; a stage 2 behind it meets one by its ratios.

        Args:
            name: the method.
            model: the model to compress, or its transformers config.
            tokens: the budget as a number of visual tokens; give either this or `keep`.
            keep: the budget as a fraction of the image's visual tokens, in (0, 1].
            coverage: instead of a budget, a share in (0, 1] of each image that stage 1 is to cover, by as few tokens
                as that takes (docs/methods.md); `coverage_floor=` and `dominant=` bound their number.
            changes: settings to change afterwards, for example `query="all"`; and `grid=(rows, columns)`, the patches
                of an image, for models whose images have different numbers of visual tokens. Without a grid, `keep`
                gives fractions there, and `tokens` counts for images that have as many. `audio_keep="auto"` is milder
                to sound than to images: the square root of the share of the visual tokens that the budget is.

        Returns:
            The settings, whose counts, drop layers and ratios meet the budget on this model.

        Raises:
            DuetError: the name is unknown; the model is not supported or is no model; there is no budget, or two; the
                method cannot meet it on this model; or a change is no setting.

        Example:
            >>> from duet_vlm import DuetConfig
            >>> from duet_vlm.demo.model import load
            >>> model, processor = load()
            >>> config = DuetConfig.preset("duet", model=model, keep=0.33)
            >>> config.dominant, config.contextual, config.drops[0]
            (87, 17, Drop(layer=6, keep=0.5, rank_at=None))
        """
        return preset(name, model=model, tokens=tokens, keep=keep, coverage=coverage, **changes)

    def save(self, path: str | PathLike[str], *, promise: Mapping[str, Any] | None = None) -> None:
        """Write the settings to a JSON file, for `load` and for `--config` of every command.

        Args:
            path: the file; one that is there is replaced.
            promise: JSON-able, what is known of these settings; `duet tune` writes what they keep of the full model.

        Raises:
            DuetError: a method that has no name, or a file that cannot be written.
        """
        saved.save(self, path, promise)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> DuetConfig:
        """Read the settings that `save` or `duet tune` wrote.

        Args:
            path: the file.

        Raises:
            DuetError: no such file, no settings in it, or some that this version does not know.

        Example:
            >>> import os, tempfile
            >>> from duet_vlm import DuetConfig
            >>> file = os.path.join(tempfile.mkdtemp(), "duet.json")
            >>> DuetConfig(dominant=0.2, fallback=0.3).save(file)
            >>> DuetConfig.load(file).fallback
            0.3
        """
        return cls.from_dict(saved.read(path))


def preset(
    name: str,
    *,
    model: Any = None,
    tokens: float | None = None,
    keep: float | None = None,
    coverage: float | None = None,
    grid: tuple[int, ...] | None = None,
    audio_keep: float | Literal["auto"] | None = None,
    **changes: Any,
) -> DuetConfig:
    """What `DuetConfig.preset` does, which describes the arguments."""
    stage1, stage2 = stages(name)
    grid = None if grid is None else as_grid(grid)
    if (stage1, stage2) == (NONE, NONE):
        check_budget(tokens, keep)  # whoever tries all methods at one budget may try this one, too
        return DuetConfig.from_dict(changes | {"audio_keep": None if audio_keep == AUTO else audio_keep})
    unbudgeted = stage1 != NONE and not STAGE1[stage1].budgeted
    budget = Budget.parse(stage1 if unbudgeted and stage2 == NONE else name, tokens, keep, coverage)
    if model is None:
        raise DuetError(f"preset {name!r} needs model=: the model to compress, or its config.")
    from .families import facts_of, family_of
    from .families.refusals import check_downsampling, check_pruning, check_whole_videos

    config = config_of(model)
    if unbudgeted:
        check_pruning(family_of(config), config)
        changes, stage1 = {NAME: EXACT} | changes, NONE
        if stage2 == NONE:
            return DuetConfig.from_dict(changes)
    if stage1 != NONE and STAGE1[stage1].at == "pixels":
        check_downsampling(family_of(config), config)
    elif stage1 != NONE:
        check_whole_videos(family_of(config), config, STAGE1[stage1])
    facts = facts_of(config, grid)
    solver = BudgetSolver(
        name=name, stage1=stage1, stage2=stage2, layers=facts.layers, droppable=facts.droppable,
        keep_ratios=facts.keep_ratios,
    )  # fmt: skip
    whole = facts.visual_tokens
    if audio_keep == AUTO:
        audio_keep = milder(budget, whole)
    match budget:
        case Budget(coverage=float(share)):
            solved = solver.covering(share)
        case Budget(keep=float(share)):
            solved = solver.shares(share) if whole is None else solver.counts(share * whole, whole)
        case Budget(tokens=float(count)):
            solved = solver.counts_of_any_image(count) if whole is None else solver.counts(count, whole)
    settings = solved | CHANGES.get(name, {}) | changes | {"audio_keep": audio_keep}
    return DuetConfig.from_dict(_with_rest(settings) if "contextual" not in changes else settings)


def _with_rest(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose `rest` has a token to be: one of those that would be chosen, where nothing else is merged."""
    if not settings.get("rest") or settings.get("contextual") or settings.get("dominant") is None:
        return settings
    dominant = settings["dominant"]
    return settings | {"dominant": dominant - 1 if isinstance(dominant, int) else dominant, "contextual": 1}


def saved_config(model_config: PreTrainedConfig) -> DuetConfig:
    """The settings that a checkpoint brings along in `config.duet`.

    Args:
        model_config: the model's transformers config.

    Raises:
        DuetError: none, or none that this version understands.
    """
    brought = getattr(model_config, "duet", None)
    if brought is None:
        raise DuetError("there is no config: pass a DuetConfig, or load a model whose config.duet was saved.")
    try:
        return DuetConfig.from_dict(brought)
    except DuetError as error:
        raise DuetError(
            f"config.duet in the model's saved config cannot be used ({reason(error, 150)}): "
            "pass a DuetConfig to apply instead."
        ) from error


__all__ = ["Drop", "DuetConfig", "preset", "saved_config", "stages"]
