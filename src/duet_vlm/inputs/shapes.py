"""Published shapes: the sizes of a model and of its image processor, without its weights. Plain data, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DuetError
from .published import audio, glm, llava, native, qwen, tiles
from .shape_parts import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# name -> what the checkpoint named beside it publishes on the hub
SHAPES: dict[str, Shape] = llava.SHAPES | qwen.SHAPES | glm.SHAPES | tiles.SHAPES | native.SHAPES | audio.SHAPES


def shape_of(name: str) -> Shape:
    """A published shape by its name.

    Raises:
        DuetError: a name that is not in `SHAPES`.
    """
    if name not in SHAPES:
        raise DuetError(f"shape {name!r} is unknown: choose one of {', '.join(SHAPES)}.")
    return SHAPES[name]


def shape_config(name: str) -> PreTrainedConfig:
    """The transformers config of a published shape.

    Raises:
        DuetError: a name that is not in `SHAPES`.
    """
    fields = dict(shape_of(name).config)
    from transformers import AutoConfig

    return AutoConfig.for_model(fields.pop("model_type"), **fields)
