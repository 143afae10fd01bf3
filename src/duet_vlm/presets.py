"""Published methods by name, at any budget: name and budget -> DuetConfig. METHOD: "Budgets"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config.arguments import config_of
from .config.budget import as_grid
from .config.fitting import Problem
from .config.methods import CHANGES, NAMES, stages
from .config.settings import Drop, Settings
from .config.values import check_budget
from .errors import DuetError, reason


@dataclass(frozen=True, eq=False)
class DuetConfig(Settings):
    __doc__ = Settings.__doc__

    @classmethod
    def preset(
        cls, name: str, *, model: Any = None, tokens: float | None = None, keep: float | None = None, **changes: Any
    ) -> DuetConfig:
        """A published method at a budget of visual tokens, averaged over the decoder's layers; see `presets.preset`."""
        return preset(name, model=model, tokens=tokens, keep=keep, **changes)


def preset(
    name: str,
    *,
    model: Any = None,
    tokens: float | None = None,
    keep: float | None = None,
    grid: tuple[int, ...] | None = None,
    **changes: Any,
) -> DuetConfig:
    """A published method at a budget.

    The budget is the number of visual tokens per image (per crop for AnyRes, per frame for videos) that a decoder layer
    processes, averaged over the layers; text is never counted. It is met within half a token, on any depth and any
    number of visual tokens, with two exceptions: fractions round down on each image, and `downsample` comes as near as
    whole rows and columns allow. Budgets that the authors published settings for give exactly these.

    A name is that of a method ("duet", "visionzip", "pyramiddrop": `methods.NAMES`), or a stage 1 and a stage 2 joined
    by "+" ("visionzip+fastv", "random+duet", "duet+none", "none+duet": `methods.STAGE_1`, `methods.STAGE_2`), or
    "duet-plus": "duet" with the options that beat it. Behind a stage 1, stage 2 keeps its authors' drop layers and
    ratios, and the number of tokens that stage 1 retains meets the budget. A stage 2 alone meets it by its ratios.

    Args:
        name: the method; what each does is in docs/methods.md.
        model: a supported transformers model, or its config.
        tokens: the budget in tokens, or
        keep: the budget as a fraction of the image's visual tokens.
        grid: of an image, in patches, as in `image_grid_thw`: for models whose images have different numbers of visual
            tokens. Without it, `keep` gives fractions there, and `tokens` counts for images that have as many.
        changes: fields of `DuetConfig` to set afterwards, for example `query="all"`.

    Raises:
        DuetError: an unknown name, an unsupported model or something that is none, no budget or two, one that the
            method cannot meet on this model, or changes that are no settings.
    """
    first, second = stages(name)
    grid = None if grid is None else as_grid(grid)
    check_budget(tokens, keep)
    if (first, second) == ("none", "none"):
        return DuetConfig.from_dict(changes)
    if model is None:
        raise DuetError(f"preset {name!r} needs model=: the model to compress, or its config.")
    if (tokens is None) == (keep is None):
        raise DuetError("give the budget once: either tokens=, an average per layer, or keep=, a fraction in (0, 1].")
    from .families import facts_of, family_of
    from .families.family import check_downsampling

    config = config_of(model)
    if first == "downsample":
        check_downsampling(family_of(config), config)
    facts = facts_of(config, grid)
    problem = Problem(name, first, second, facts.layers, facts.late)
    whole = facts.visual_tokens
    if keep is not None:
        solved = problem.shares(float(keep)) if whole is None else problem.counts(float(keep) * whole, whole)
    else:
        assert tokens is not None
        solved = problem.counts_of_any_image(float(tokens)) if whole is None else problem.counts(float(tokens), whole)
    return DuetConfig.from_dict(solved | CHANGES.get(name, {}) | changes)


def saved_config(model_config: Any) -> DuetConfig:
    """The settings that a checkpoint brings along in `config.duet`.

    Args:
        model_config: the model's transformers config.

    Raises:
        DuetError: none, or none that this version understands.
    """
    saved = getattr(model_config, "duet", None)
    if saved is None:
        raise DuetError("there is no config: pass a DuetConfig, or load a model whose config.duet was saved.")
    try:
        return DuetConfig.from_dict(saved)
    except DuetError as error:
        raise DuetError(
            f"config.duet in the model's saved config cannot be used ({reason(error, 150)}): "
            "pass a DuetConfig to apply instead."
        ) from error


__all__ = ["NAMES", "Drop", "DuetConfig", "preset", "saved_config"]
