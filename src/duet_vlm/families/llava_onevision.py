"""LLaVA-OneVision: AnyRes images, merged as packed, and videos, merged as pooled, a frame at a time.

The score is the attention that a patch receives. Packing cuts padding off, may interpolate, and ends rows with
newlines; scores and keys are packed by the same stock method, so that they stay beside their tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..errors import DuetError
from . import fixed
from .family import Family, Replaced, check_feature_layer


class Stage1(fixed.Stage1):
    """Retained tokens stay at their places in the packed image or the frame; zeros elsewhere, newlines included."""

    dynamic = True

    def hook(self) -> list[Any]:
        return [
            *self.taps(),
            Replaced(self.core, "pack_image_features", self.pack_image_features),
            Replaced(self.core, "apply_pooling", self.apply_pooling),
            *([Replaced(self.core, "get_video_features", self.get_video_features)] if self.config.proportional else []),
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
            kept.append(tokens.new_zeros(len(features), tokens.shape[2]).index_copy(0, places, tokens[0]))
            merges.append(decided)
        noted.result.duet_merges = merges
        return kept, lengths

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """As stock, then merged: every frame alone."""
        merged = self.after_projector(self.projector, (), type(self.core).apply_pooling(self.core, image_features))
        return merged[..., : image_features.shape[2]]  # stock puts a newline of that width behind the tokens

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: Any = None,
        vision_feature_select_strategy: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As stock, then with the sizes of the tokens."""
        output = type(self.core).get_video_features(
            self.core, pixel_values_videos, vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy, **kwargs,
        )  # fmt: skip
        features, merges = output.pooler_output, output.duet_merges
        sizes = torch.cat([torch.zeros_like(m.scores).scatter(1, m.places, m.sizes.to(m.scores)) for m in merges])
        sizes = pad(sizes.reshape(len(features), -1, 1), (0, 0, 0, 1))
        output.pooler_output = torch.cat([features, sizes.to(features)], dim=2)
        return output

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
            raise DuetError(
                f"stage 1 needs a siglip_vision_model with vision_feature_select_strategy 'full', and this model has a "
                f"{kind} with {strategy!r}: set dominant=None to use stage 2 alone."
            )

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[RemovableHandle]:
        return Stage1(core, duet).hook()

    def finish(self, core: Any, features: Any) -> Any:
        """The newline that ends a video goes; those of images went when they were packed."""
        return pad(features[:, :-1], (0, 0, 0, 1)) if isinstance(features, Tensor) else features
