"""LLaVA-NeXT (AnyRes): stage 1 per crop; what is retained stays at its place in the crop's grid, CLS takes none."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.budget import stage1_counts
from ..config.per_image import aged
from ..config.settings import Settings
from ..host import tiles_of
from ..host.refs import wrap
from ..stage1 import Encoded, Merge, merge
from . import cls_tower
from .anyres import AnyRes
from .downsample import Downsample
from .encoding import EncoderCall, Stage1
from .llava import Llava

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Packed(Stage1):
    """A stage 1 whose crops are packed to one image."""

    def hook(self) -> list[Any]:
        return [*super().hook(), wrap(self.core, "pack_image_features", self.around_packing)]

    def around_packing(self, pack: Any, image_features: Any, image_sizes: Any, *args: Any, **kwargs: Any) -> Any:
        """Pack as stock does, then pack what stage 1 made of the crops in the same way, without row ends."""
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


@dataclass(frozen=True)
class Share:
    """What is retained of one crop: of its patches, a rectangle of `grid`, that are no padding.

    Attributes:
        inside: (n,) their places in the crop, in raster order.
    """

    inside: tuple[int, ...]
    grid: tuple[int, int]
    dominant: int
    contextual: int

    def older(self, config: Settings) -> Share:
        """The share of a crop of an older image, by `history`."""
        dominant, contextual = aged(config, (self.dominant, self.contextual))
        return replace(self, dominant=dominant, contextual=contextual)


class LlavaNextStage1(Packed, cls_tower.ClsStage1):
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere.

    A crop retains K1 + K2 of its N patches, and in proportion where a part of it is padding, which stock cuts off
    afterwards: of the n patches of an image that are none, (K1 + K2) n / N are retained, to half a token.
    """

    def chunks(self, call: EncoderCall, patches: Tensor) -> list[slice]:
        """Crops that follow each other and have equal shares, as many as are held at a time."""
        chunks, images_per_chunk, start = [], self.images_per_chunk(patches), 0
        for _, run in groupby(self.shares(call)):
            end = start + len(list(run))
            chunks += [slice(i, min(i + images_per_chunk, end)) for i in range(start, end, images_per_chunk)]
            start = end
        return chunks

    def shares(self, call: EncoderCall) -> list[Share]:
        """Return the share of every crop, in the order of encoding."""
        if call.shares is None:
            sizes = torch.as_tensor(call.arguments["image_sizes"]).tolist()
            known = {size: shares(self.core, self.config, size) for size in {tuple(size) for size in sizes}}
            call.shares = list[Share]()
            for size in sizes:
                length, own = known[tuple(size)]
                older = self.config.history is not None and call.is_older(length)
                call.shares += [one.older(self.config) for one in own] if older else own
        return call.shares

    def merge_of(self, layer: Any, call: EncoderCall, part: slice, patches: Tensor) -> Merge:
        share = self.shares(call)[part.start]
        scores, keys = self.statistics(layer, call, part)
        if not share.dominant:
            none = torch.zeros(len(patches), 0, dtype=torch.long, device=patches.device)
            return Merge(scores, none, none, none, none)
        config = replace(self.config, dominant=share.dominant, contextual=share.contextual)
        if len(share.inside) == patches.shape[1]:
            return merge(config, Encoded(scores, keys, patches, share.grid))
        inside = torch.tensor(share.inside, device=patches.device)
        merged = merge(config, Encoded(scores[:, inside], keys[:, inside], patches[:, inside], share.grid))
        weights = merged.weights
        return replace(
            merged,
            scores=scores,
            weights=None if weights is None else torch.zeros_like(scores).index_copy(1, inside, weights.to(scores)),
            **{name: inside[getattr(merged, name)] for name in ("dominant", "anchors", "members")},
        )


def shares(core: Any, config: Settings, size: tuple[int, int]) -> tuple[int, list[Share]]:
    """Divide what one image of this (height, width) retains among its crops; with its tokens in the prompt.

    Stock itself packs the numbers of the patches, so what is left of them is no padding.
    """
    rows, columns = cls_tower.grid(core.config)
    patches, crops = rows * columns, 1 + tiles_of(core.config, size)[0]
    numbers = torch.arange(1, crops * patches + 1).reshape(crops, patches, 1)  # and 0 the row ends
    pack = type(core).pack_image_features
    packed, _ = pack(core, [numbers], torch.tensor([size]), "default", image_newline=torch.zeros(1))
    left = packed[0][packed[0] > 0] - 1
    per_crop = stage1_counts(config, patches)
    crop_shares, before = list[Share](), 0
    for crop in range(crops):
        inside = (left[left // patches == crop] % patches).sort().values
        width = len((inside % columns).unique())
        grid = (len(inside) // max(1, width), width)
        crop_shares.append(share_of(tuple(inside.tolist()), grid, per_crop, before, patches))
        before += len(inside)
    return len(packed[0]), crop_shares


def share_of(inside: tuple[int, ...], grid: tuple[int, int], counts: tuple[int, int], before: int, whole: int) -> Share:
    """Return the share of one crop, in proportion to its patches.

    Args:
        inside: their places.
        grid: their rows and columns.
        counts: K1 and K2 of a crop of `whole` patches.
        before: patches of the crops before it, to whose total it is rounded.
        whole: patches of a crop without padding.
    """
    after = before + len(inside)
    kept, contextual = (round(k * after / whole) - round(k * before / whole) for k in (sum(counts), counts[1]))
    contextual = max(0, min(contextual, kept - 1))
    return Share(inside, grid, kept - contextual, contextual)


class Smaller(Packed, Downsample):
    """Every crop is shrunk."""


class LlavaNext(AnyRes, Llava, model_types=("llava_next",)):
    reserved = LlavaNextStage1.reserved
    stage1 = LlavaNextStage1
    shrinking = Smaller

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        return tokens >= self.visual_tokens(config)  # a base crop, and what is left of its tiles without padding
