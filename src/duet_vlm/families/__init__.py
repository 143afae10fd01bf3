"""What differs between model families: one short file each, found by `config.model_type`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..merging import Merge


class Family(Protocol):
    """What a family's module provides.

    Attributes:
        POSITIONS: "renumber" or "keep", what the published method does after a drop.
    """

    POSITIONS: str

    def visual_tokens(self, config: Any) -> int:
        """Visual tokens of one image (AnyRes: of one crop), from the model's config."""

    def check(self, config: Any, duet: DuetConfig) -> None:
        """Raise ValueError where this model cannot do what is asked of stage 1."""

    def is_whole(self, config: Any, tokens: int) -> bool:
        """Whether one image can have this many visual tokens, row ends included."""

    def hook_encoder(self, core: nn.Module, duet: DuetConfig) -> list[RemovableHandle]:
        """Merge at the encoder: zeros where a token was removed, so placeholder counts stay stock."""

    def finish(self, core: nn.Module, features: list[Tensor]) -> list[Tensor]:
        """Last touch on the encoded images (tokens, width), as the language model will get them."""

    def take_merges(self) -> list[Merge]:
        """What stage 1 did in this thread since the last call, for the trace."""


@dataclass(frozen=True)
class Facts:
    """What a budget needs to know of a model."""

    visual_tokens: int
    layers: int


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        ValueError: no family file for its model_type.
    """
    from . import llava, llava_next

    families: dict[str, Any] = {"llava": llava, "llava_next": llava_next}
    family: Family | None = families.get(getattr(config, "model_type", ""))
    if family is None:
        raise ValueError(
            f"models of type {getattr(config, 'model_type', type(config).__name__)!r} are not supported: "
            f"duet-vlm compresses {', '.join(families)}."
        )
    return family


def facts_of(model: Any) -> Facts:
    """Visual tokens per image and decoder depth of a model or its config."""
    config = getattr(model, "config", model)
    visual_tokens: Callable[[Any], int] = family_of(config).visual_tokens
    return Facts(visual_tokens(config), config.get_text_config().num_hidden_layers)
