"""LLaVA-OneVision: AnyRes images, merged as packed, and videos, merged as pooled, a frame at a time.

The score is the attention that a patch receives. Packing cuts padding off, may interpolate, and ends rows with
newlines; scores and keys are packed by the same stock method, so that they stay beside their tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from . import fixed
from .family import Family, check_feature_layer


class Replaced:
    """A method of one module, replaced until `remove()`: for what happens in no module that could be hooked."""

    def __init__(self, module: Any, name: str, method: Callable[..., Any]):
        self.module, self.name = module, name
        setattr(module, name, method)

    def remove(self) -> None:
        self.module.__dict__.pop(self.name, None)


class Stage1(fixed.Stage1):
    """Retained tokens stay at their places in the packed image or the frame; zeros elsewhere, newlines included."""

    dynamic = True

    def hook(self) -> list[Any]:
        return [
            *self.taps(),
            Replaced(self.core, "pack_image_features", self.pack_image_features),
            Replaced(self.core, "apply_pooling", self.apply_pooling),
        ]

    def pack_image_features(
        self, image_features: Any, image_sizes: Any, image_newline: Tensor | None = None, **how: Any
    ) -> tuple[list[Tensor], Tensor]:
        """As stock, then merged: base crop and tiles of an image together."""
        stock, noted, kept, merges, first = type(self.core).pack_image_features, self.noted(), [], [], 0
        packed, lengths = stock(self.core, image_features, image_sizes, image_newline, **how)
        for number, (crops, features) in enumerate(zip(image_features, packed, strict=True)):
            found = torch.cat([self.statistics(noted, first + i) for i in range(len(crops))])
            first += len(crops)
            # one more channel, in which newlines alone are not 0
            newline = None if image_newline is None else pad(found.new_ones(1), (found.shape[2], 0))
            size = image_sizes[number : number + 1]
            (found,), _ = stock(self.core, [pad(found, (0, 1))], size, newline, **how)
            found = found.to(features.device)
            places = (found[:, -1] == 0).nonzero()[:, 0]
            tokens, decided = self.merged(found[None, places, :-1], features[None, places], None)
            kept.append(torch.zeros_like(features).index_copy(0, places, tokens[0]))
            merges.append(decided)
        noted.result.duet_merges = merges
        return kept, lengths

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """As stock, then merged: every frame alone."""
        return self.after_projector(self.projector, (), type(self.core).apply_pooling(self.core, image_features))

    def pool(self, x: Tensor) -> Tensor:
        return type(self.core).apply_pooling(self.core, x)


def side_of(config: Any) -> int:
    """Rows of patches of one crop."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def shrunk(config: Any, grid: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that stock packs an image's tiles into, which hold so many rows and columns of patches."""
    rows, columns = grid[-2:]
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * columns / (most * side_of(config) ** 2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


class LlavaOneVision(Family):
    dynamic = True

    def tokens_of_grid(self, config: Any, grid: tuple[int, ...]) -> int:
        """Of an image whose tiles hold this many rows and columns, base crop included; or of one frame of a video."""
        if len(grid) == 3 and grid[0] > 1:
            return math.ceil(side_of(config) / 2) ** 2
        rows, columns = shrunk(config, grid)
        return side_of(config) ** 2 + rows * columns

    def row_ends(self, config: Any, grid: tuple[int, ...]) -> int:
        return 1 if len(grid) == 3 and grid[0] > 1 else shrunk(config, grid)[0]

    def is_whole(self, config: Any, tokens: int) -> bool:
        frame = math.ceil(side_of(config) / 2) ** 2
        return tokens > side_of(config) ** 2 or (tokens > 1 and tokens % frame == 1)

    def check(self, config: Any, duet: DuetConfig) -> None:
        if not duet.merges:
            return
        check_feature_layer(config)
        kind, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
        if kind != "siglip_vision_model" or strategy != "full":
            raise ValueError(
                f"stage 1 needs a siglip_vision_model with vision_feature_select_strategy 'full', and this model has a "
                f"{kind} with {strategy!r}: set dominant=None to use stage 2 alone."
            )

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[RemovableHandle]:
        return Stage1(core, duet).hook()

    def finish(self, core: Any, features: Any) -> Any:
        """The newline that ends a video goes; those of images went when they were packed."""
        return pad(features[:, :-1], (0, 0, 0, 1)) if isinstance(features, Tensor) else features
