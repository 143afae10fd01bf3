"""Random pixels, as each family's processor would hand an image over, and the prompts that go with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from ..errors import DuetError
from .image_shape import ANYRES, ImageShape

TOKENS = 24  # rows and columns of visual tokens of an image of any size, as many as LLaVA-1.5's have


def usual_grid(config: Any) -> tuple[int, int] | None:
    """Rows and columns of patches of the image that is timed where a model takes any size; None elsewhere."""
    side = getattr(config.vision_config, "spatial_merge_size", None)
    return None if side is None else (TOKENS * side, TOKENS * side)


def pixels_of(
    config: Any, image: ImageShape, batch_size: int, grid: tuple[int, ...] | None, generator: Generator
) -> dict[str, Tensor]:
    """What `get_image_features` is given for `batch_size` images of that shape; float32, on the CPU.

    Args:
        grid: rows and columns of patches, for models whose images differ.
    """
    vision = config.vision_config

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if usual_grid(config) is not None:
        assert grid is not None
        rows, columns = grid[-2:]
        values = 3 * vision.temporal_patch_size * vision.patch_size**2
        thw = torch.tensor([[1, rows, columns]] * batch_size)
        return {"pixel_values": noise(batch_size * rows * columns, values), "image_grid_thw": thw}
    side = vision.image_size
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    if config.model_type in ANYRES:
        if image.size is None:
            raise DuetError(f"images of a {config.model_type} are timed by their pixels: give --image, no grid=.")
        sizes = torch.tensor([image.size] * batch_size)
        return {"pixel_values": noise(batch_size, image.crops, 3, height, width), "image_sizes": sizes}
    if config.model_type in ("smolvlm", "idefics3"):
        seen = torch.ones(batch_size, image.crops, height, width, dtype=torch.bool)
        return {"pixel_values": noise(batch_size, image.crops, 3, height, width), "pixel_attention_mask": seen}
    return {"pixel_values": noise(batch_size * image.crops, 3, height, width)}


def check_text(image: ImageShape, text_tokens: int) -> None:
    """Raises ValueError where there is no word for between two parts that are ranked one by one."""
    if text_tokens < image.spans + 3:
        raise DuetError(
            f"text_tokens {text_tokens} are too few for {image.spans} tiles: give {image.spans + 3} or more."
        )


def prompts_of(config: Any, image: ImageShape, batch_size: int, text_tokens: int, generator: Generator) -> Tensor:
    """(B, S) ids: a few words, the image's placeholders, the other words; a word between parts ranked one by one."""
    vocabulary = config.get_text_config().vocab_size
    words = torch.randint(3, vocabulary - 1, (batch_size, text_tokens), generator=generator)
    named = [getattr(config, name) for name in dir(config) if name.endswith(("token_id", "token_index"))]
    special = torch.tensor([token for token in named if isinstance(token, int)])
    words = torch.where(torch.isin(words, special), 3, words)
    check_text(image, text_tokens)
    between = image.spans - 1
    first = min(5, (text_tokens - between) // 4)
    part = torch.full((batch_size, image.visual_tokens // image.spans), config.image_token_id)
    parts = [words[:, :first], part]
    for i in range(first, first + between):
        parts += [words[:, i : i + 1], part]
    return torch.cat([*parts, words[:, first + between :]], dim=1)


def beside_the_prompt(config: Any, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a processor hands the language model beside ids: what each token is, and the sizes that positions need."""
    visual = (ids == config.image_token_id).long()
    if "image_grid_thw" in pixels:
        return {"mm_token_type_ids": visual, "image_grid_thw": pixels["image_grid_thw"]}
    return {"token_type_ids": visual} if config.model_type == "gemma3" else {}
