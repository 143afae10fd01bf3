"""Random pixels, as each family's processor would hand an image over, and the prompts that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from ..errors import DuetError
from . import family_of
from .image_shape import ImageShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def usual_grid(config: PreTrainedConfig) -> tuple[int, int] | None:
    """Rows and columns of patches of the image that is timed where a model takes any size; None elsewhere."""
    return family_of(config).usual_grid(config)


def pixels_of(
    config: PreTrainedConfig, image: ImageShape, batch_size: int, grid: tuple[int, ...] | None, generator: Generator
) -> dict[str, Tensor]:
    """What `get_image_features` is given for `batch_size` images of that shape; float32, on the CPU.

    Args:
        grid: rows and columns of patches, for models whose images differ.
    """

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    return family_of(config).pixels(config, noise, batch_size, grid=grid, tiles=image.crops, size=image.size)


def check_text_length(image: ImageShape, text_tokens: int) -> None:
    """Raises ValueError where there is no word for between two parts that are ranked one by one."""
    if text_tokens < image.spans + 3:
        raise DuetError(
            f"text_tokens {text_tokens} are too few for {image.spans} tiles: give {image.spans + 3} or more."
        )


def prompts_of(
    config: PreTrainedConfig, image: ImageShape, batch_size: int, text_tokens: int, generator: Generator
) -> Tensor:
    """(B, S) ids: a few words, the image's placeholders, the other words; a word between parts ranked one by one."""
    vocabulary = config.get_text_config().vocab_size
    words = torch.randint(3, vocabulary - 1, (batch_size, text_tokens), generator=generator)
    named = [getattr(config, name) for name in dir(config) if name.endswith(("token_id", "token_index"))]
    special = torch.tensor([token for token in named if isinstance(token, int)])
    words = torch.where(torch.isin(words, special), 3, words)
    check_text_length(image, text_tokens)
    between = image.spans - 1
    before = min(5, (text_tokens - between) // 4)
    part = torch.full((batch_size, image.visual_tokens // image.spans), config.image_token_id)
    parts = [words[:, :before], part]
    for i in range(before, before + between):
        parts += [words[:, i : i + 1], part]
    return torch.cat([*parts, words[:, before + between :]], dim=1)
