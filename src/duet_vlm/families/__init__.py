"""What differs between model families: one short file each, found by `config.model_type`."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.layer_shape import lending_layers
from ..errors import DuetError, shown
from .family import FAMILIES, Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Facts:
    """What a budget needs to know of a model.

    Attributes:
        visual_tokens: of one image (AnyRes: crop; video: frame); None where images differ and no grid was given.
        layers: decoder layers.
        droppable: those that a schedule spreads its drops over: all, or where some borrow keys and values those up to
            the first that lends them.
        dynamic: whether small images clamp K1 and K2.
        keep_ratios: keep ratios of `duet` at L/2 and 3L/4.
    """

    visual_tokens: int | None
    layers: int
    droppable: int
    dynamic: bool = False
    keep_ratios: tuple[float, float] = (0.5, 0.0)


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a transformers config.

    Raises:
        ValueError: no family file for its model_type.
    """
    kind = getattr(config, "model_type", type(config).__name__)
    family = FAMILIES.get(kind)
    if family is None:
        raise DuetError(
            f"models of type {shown(kind)} are not supported: duet-vlm compresses {len(FAMILIES)} types, llava, "
            "qwen2_5_vl and internvl among them; docs/families.md names them all."
        )
    return family.variant(config)


def facts_of(model: Any, grid: tuple[int, ...] | None = None) -> Facts:
    """What a budget needs to know of a model or its config; `grid` is an image's, in patches, as `image_grid_thw`."""
    config = getattr(model, "config", model)
    family = family_of(config)
    layers, lending = config.get_text_config().num_hidden_layers, lending_layers(config)
    if grid is not None:
        tokens: int | None = family.tokens_of_grid(config, tuple(grid))
    else:
        tokens = None if family.dynamic else family.visual_tokens(config)
    return Facts(tokens, layers, min(lending) + 1 if lending else layers, family.dynamic, family.keep_ratios)


def visual_token_ids(config: PreTrainedConfig) -> dict[str, int]:
    """Modality -> the id of its placeholder in prompts."""
    return family_of(config).placeholders(config)


def is_visual(config: Any, ids: Tensor) -> Tensor:
    """(B, S) ids -> (B, S) bool, the places of images and videos."""
    return torch.isin(ids, torch.tensor(list(visual_token_ids(config).values()), device=ids.device))


for _file in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_file.name)  # each registers its families

__all__ = ["FAMILIES", "Facts", "Family", "facts_of", "family_of", "is_visual", "visual_token_ids"]
