"""LLaVA-NeXT (AnyRes): stage 1 per crop; what is retained stays at its place in the crop's grid, CLS takes none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..merging import Merge
from . import clip
from .downsample import Downsample
from .family import Replaced, zeros_where
from .llava import Llava


class Stage1(clip.Stage1):
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere."""

    def hook(self) -> list[Any]:
        if not self.config.proportional:
            return super().hook()
        return [*super().hook(), Replaced(self.core, "pack_image_features", self.pack_image_features)]

    def pack_image_features(
        self, image_features: Any, image_sizes: Any, vision_feature_select_strategy: str,
        image_newline: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:  # fmt: skip
        """As stock, with the sizes of the tokens as one more channel."""
        newline = None if image_newline is None else pad(image_newline, (0, 1))
        stock = type(self.core).pack_image_features
        packed: tuple[list[Tensor], Tensor] = stock(
            self.core, image_features, image_sizes, vision_feature_select_strategy, newline
        )
        return packed

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return merge.retained(patches)

    def placed(self, projected: Tensor, merges: list[Merge], length: int) -> Tensor:
        places = torch.cat([merge.places for merge in merges])[..., None].expand_as(projected)
        return projected.new_zeros(len(projected), length, projected.shape[2]).scatter(1, places, projected)


class LlavaNext(Llava):
    reserved = Stage1.reserved

    def is_whole(self, config: Any, tokens: int) -> bool:
        return tokens > self.visual_tokens(config)  # a base crop and tiles; how many depends on the image

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[RemovableHandle]:
        if duet.downsample is not None:
            return Downsample(core, duet, clip.grid(core.config)).hook()
        return Stage1(core, duet).hook()

    def finish(self, core: Any, features: Any) -> Any:
        """The row-end newline tokens go."""
        return zeros_where(features, core.image_newline)
