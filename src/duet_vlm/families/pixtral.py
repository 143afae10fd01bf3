"""Pixtral: images of any size, all of a batch in one row under a mask; the score is the attention that is received.

The tokens that end rows of an image, [IMG_BREAK] and [IMG_END], are text of the prompt: none of them is ever dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from . import fixed
from .encoding import EncoderCall
from .family import Family, Make
from .features import check_feature_layer, feature_layer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 24  # rows and columns of visual tokens of the image that is timed, as many as LLaVA-1.5's have


class PixtralStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image; zeros elsewhere.

    Scores are made while the scoring attention is called, of one image at a time: without a mask, from its own patches.
    """

    dynamic = True

    @property
    def attention(self) -> Any:
        return feature_layer(self.core.config, self.tower.transformer.layers).attention

    def cannot_follow(self, arguments: dict[str, Any]) -> str | None:
        if arguments.get("image_sizes") is None:
            return "images came without image_sizes, which tell them apart: pass what the processor gives."
        return super().cannot_follow(arguments)

    def grids(self, call: EncoderCall) -> list[tuple[int, int]]:
        """Rows and columns of patches of every image."""
        return grids_of(self.core.config, call.arguments)

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        (cos, sin), start = others["position_embeddings"], 0
        for grid in self.grids(call):
            part = slice(start, start + grid[0] * grid[1])
            scores, keys = received(attention, hidden[:, part], position_embeddings=(cos[part], sin[part]))[0]
            call.scores.append(self.averaged(scores[..., None], grid)[..., 0])
            call.keys.append(self.averaged(keys, grid))
            start = part.stop

    def averaged(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Average over the patches that make one visual token: (1, patches, C) -> (1, n, C)."""
        squares = avg_pool2d(x.transpose(1, 2).unflatten(2, grid), side_of(self.core.config))
        return squares.flatten(2).transpose(1, 2)

    def merge_images(self, call: EncoderCall, tokens: Tensor) -> None:
        side, start, parts = side_of(self.core.config), 0, []
        features = tokens.flatten(0, -2)
        for (rows, columns), scores, keys in zip(self.grids(call), call.scores, call.keys, strict=True):
            grid = rows // side, columns // side
            part = slice(start, start + grid[0] * grid[1])
            statistics = torch.cat([scores[..., None], keys], dim=2)
            parts.append(self.merged(call, statistics, features[None, part], grid))
            start = part.stop
        call.features, call.sizes = (torch.cat([part[i][0] for part in parts]) for i in (0, 1))


def side_of(config: PreTrainedConfig) -> int:
    """Rows, and columns, of patches that make one visual token."""
    return int(getattr(config, "spatial_merge_size", 1))


def grids_of(config: PreTrainedConfig, inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of patches of every image of a call or a prompt."""
    patch = config.vision_config.patch_size
    return [(h // patch, w // patch) for h, w in torch.as_tensor(inputs["image_sizes"]).tolist()]


class Pixtral(Family):
    """What Mistral 3 and LLaVA with a Pixtral tower share."""

    dynamic = True
    stage1 = PixtralStage1

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        tokens = frames * (rows // side_of(config)) * (columns // side_of(config))
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if duet.merges:
            check_feature_layer(config)

    def crops_in(self, inputs: Mapping[str, Any]) -> Tensor | None:
        return None  # pictures whole, however they are padded to a batch

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        if inputs.get("image_sizes") is None:
            return None
        side, grid = side_of(config), grids_of(config, inputs)[0]
        # an image processor that was not told of the merging gives rows and columns that a processor rounds up
        rows, columns = (-(-n // side) * side for n in grid)
        return 1, rows, columns

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> tuple[int, int]:
        grid, side = self.grid_of(config, inputs), side_of(config)
        if grid is None:
            raise DuetError("there is no picture in this prompt: give inputs with image_sizes.")
        return grid[1] // side, grid[2] // side

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int]:
        return (SIDE * side_of(config),) * 2

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        patch = config.vision_config.patch_size
        height, width = (n * patch for n in (grid or self.usual_grid(config))[-2:])
        return {"pixel_values": make((count, 3, height, width)), "image_sizes": torch.tensor([[height, width]] * count)}

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        side = 4 * side_of(config)
        return self.pixels(config, torch.ones, grid=(side, side))
