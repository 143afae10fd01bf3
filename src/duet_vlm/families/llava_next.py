"""LLaVA-NeXT (AnyRes): stage 1 per crop; what is retained stays at its place in the crop's grid, CLS takes none."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ..config import DuetConfig
from ..merging import Merge
from ..refs import wrap
from . import clip, encoding
from .downsample import Downsample
from .llava import Llava


class Packed(encoding.Stage1):
    """A stage 1 whose crops are packed to one image."""

    def hook(self) -> list[Any]:
        return [*super().hook(), wrap(self.core, "pack_image_features", self.around_packing)]

    def around_packing(self, pack: Any, image_features: Any, image_sizes: Any, *args: Any, **kwargs: Any) -> Any:
        """As stock; then what stage 1 made of the crops is packed in the same way, row ends left out."""
        call = self.call()
        if call is None or call.features is None or call.sizes is None:
            return pack(image_features, image_sizes, *args, **kwargs)
        packed = pack(image_features, image_sizes, *args, **kwargs)
        crops = [len(features) for features in image_features]
        merged = call.features.unflatten(0, (sum(crops), -1))
        features = packed[0] if call.engine_only else pack(merged.split(crops), image_sizes, *args, **kwargs)[0]
        sizes = call.sizes.unflatten(0, (sum(crops), -1))[..., None]
        how = inspect.signature(pack).bind(sizes.split(crops), image_sizes, *args, **kwargs).arguments
        if how.get("image_newline") is not None:
            how["image_newline"] = sizes.new_zeros(1)
        counts = pack(**how)[0]
        call.features, call.sizes = torch.cat(list(features)), torch.cat([count[:, 0] for count in counts])
        return packed


class Stage1(Packed, clip.Stage1):
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere."""

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return merge.retained(patches)

    def placed(self, projected: Tensor, merges: list[Merge], length: int) -> tuple[Tensor, Tensor]:
        places, sizes = (torch.cat([getattr(merge, name) for merge in merges]) for name in ("places", "sizes"))
        return encoding.placed(projected, places, sizes, length)


class Smaller(Packed, Downsample):
    """Every crop is shrunk."""


class LlavaNext(Llava):
    reserved = Stage1.reserved

    def is_whole(self, config: Any, tokens: int) -> bool:
        return tokens > self.visual_tokens(config)  # a base crop and tiles; how many depends on the image

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[Any]:
        if duet.downsample is not None:
            return Smaller(core, duet, clip.grid(core.config)).hook()
        return Stage1(core, duet).hook()
