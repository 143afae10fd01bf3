"""Where PixelPrune meets an encoder: blocks that repeat a neighbour never enter the tower (`stage1/pixelprune.py`).

A tower of packed images takes any number of patches, each with its own position. So the kept ones alone are handed to
it, at their positions, and what comes out is put back to its places, with zeros where a block was left out. Where
nothing repeats, nothing is touched. It works for the engine alone: features that somebody else asks for are stock's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import host
from ..config.settings import Settings
from ..stage1 import Encoded, Merge, merge, selected
from ..stage1.pixelprune import pixelprune
from .blocks import Blocks
from .encoding import EncoderCall, Stage1, merged_in_place
from .video.processors import CLIP_STD

LEVELS = 255.0  # between black and white


class KeptStage1(Stage1):
    """PixelPrune alone: every block that went into the tower goes into the language model."""

    def taps(self) -> list[Any]:
        return []

    def after_encoder(self, call: EncoderCall, output: Any) -> None:
        if call.blocks is None:  # an encoder that has called another one, which is done
            return
        features = torch.cat([images.flatten(0, -2) for images in self.family.entries(output)])
        flat = call.blocks.flat.to(features.device)
        call.features, call.sizes = features.masked_fill(~flat[:, None], 0), flat.float()
        for part, places in call.blocks.parts():
            scores = call.sizes[None, part]  # nothing ranked: 1 for what is kept
            call.decisions.append(selected(Encoded(scores, scores[..., None], scores[..., None]), places[None]))


class Pruning:
    """Hooks on one tower, for towers that take flat patches, block after block, of all images (Qwen-VL, GLM-V).

    Attributes:
        std: by which the family's image processors divide each channel, which says what a level is.
        alone: the stage 1 where no other one is asked for.
    """

    std: tuple[float, ...] = tuple(CLIP_STD)
    alone: type[Stage1] = KeptStage1

    def __init__(self, stage: Stage1):
        self.stage = stage

    def hook(self) -> list[Any]:
        tower = self.stage.tower
        return [
            tower.register_forward_pre_hook(self.before_tower, with_kwargs=True),
            tower.register_forward_hook(self.after_tower),
        ]

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        call = self.stage.call()
        if call is None:
            return None
        given = host.named_arguments(tower, args, kwargs)
        call.blocks = Blocks([self.kept(blocks) for blocks in self.images(tower, given)])
        return None if call.blocks.all_kept else ((), self.told(tower, given, call.blocks))

    def kept(self, blocks: Tensor) -> Tensor:
        """(rows, columns, patches, channels, values) of one image -> (rows, columns) bool."""
        threshold = self.stage.config.pixelprune
        assert threshold is not None
        scale = LEVELS * torch.tensor(self.std, device=blocks.device)
        return pixelprune(blocks, threshold, scale.expand(blocks.shape[3]))

    def images(self, tower: Any, given: dict[str, Any]) -> list[Tensor]:
        """(rows, columns, patches, channels, values) of every image or frame that the tower is called with."""
        pixels, start, found = given["hidden_states"], 0, []
        side, channels = tower.config.spatial_merge_size, tower.config.in_channels
        for rows, columns in frames_of(given["grid_thw"]):
            part = pixels[start : start + rows * columns].view(rows // side, columns // side, side**2, channels, -1)
            found.append(part)
            start += rows * columns
        return found

    def told(self, tower: Any, given: dict[str, Any], blocks: Blocks) -> dict[str, Any]:
        """The tower's arguments with the kept patches alone."""
        side = tower.config.spatial_merge_size
        patches = blocks.flat.repeat_interleave(side**2)
        told = given | at_places(given, blocks, patches, side) | {"hidden_states": given["hidden_states"][patches]}
        if hasattr(tower, "fullatt_block_indexes"):
            told |= in_windows(tower, given, blocks)
        if hasattr(tower, "num_grid_per_side"):
            told |= interpolated(tower, given, patches, side)
        return told

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> Any:
        blocks = self.gone()
        if blocks is None:
            return None
        output.pooler_output = blocks.filled(output.pooler_output)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [blocks.filled(features) for features in output.deepstack_features]
        return output

    def gone(self) -> Blocks | None:
        """The blocks of the call that is under way, where some were left out."""
        call = self.stage.call()
        return None if call is None or call.blocks is None or call.blocks.all_kept else call.blocks


def frames_of(grids: Tensor) -> list[tuple[int, int]]:
    """Rows and columns of patches of every image and frame of (n, 3) grids."""
    return [(int(rows), int(columns)) for frames, rows, columns in grids.tolist() for _ in range(int(frames))]


def at_places(given: dict[str, Any], blocks: Blocks, patches: Tensor, side: int) -> dict[str, Any]:
    """Positions of the patches (n,) that are kept, and where each image or frame ends among them.

    Args:
        side: patches of a block's side, where those of a block follow each other; 1 where they lie row by row.
    """
    from transformers.vision_utils import get_vision_position_ids

    grids = given["grid_thw"]
    positions = get_vision_position_ids(grids, side, kwargs=dict(given))
    each = len(patches) // len(blocks.flat)
    ends = torch.tensor([0, *blocks.counts], device=grids.device).cumsum(0) * each
    return {"position_ids": positions[patches.to(positions.device)], "cu_seqlens": ends.to(torch.int32)}


def in_windows(tower: Any, given: dict[str, Any], blocks: Blocks) -> dict[str, Tensor]:
    """The kept blocks sorted by windows, and where each window ends among their patches; noted in `blocks.order`."""
    from transformers.vision_utils import get_vision_window_index

    index, ends = get_vision_window_index(
        given["grid_thw"], tower.spatial_merge_size, tower.window_size, tower.patch_size, kwargs=dict(given)
    )
    kept, each = blocks.flat.to(index.device), tower.spatial_merge_size**2
    there, numbers = kept[index], kept.cumsum(0) - 1
    left = torch.cat([there.new_zeros(1, dtype=torch.long), there.cumsum(0)])
    found = numbers[index[there]]
    blocks.order = found.argsort()
    ends = left[(ends // each).to(left.device)].unique_consecutive() * each
    return {"window_index": found, "cu_window_seqlens": ends.to(given["grid_thw"].device, torch.int32)}


def interpolated(embeddings: Any, given: dict[str, Any], patches: Tensor, side: int) -> dict[str, Tensor]:
    """Where learned positions are read for the patches that are kept, and how they are weighed."""
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    found = get_vision_interpolation_indices_and_weights(
        given["grid_thw"], num_grid_per_side=embeddings.num_grid_per_side, mode=embeddings.interpolation_mode,
        align_corners=embeddings.interpolation_align_corners, spatial_merge_size=side, kwargs=dict(given),
    )  # fmt: skip
    indices, weights = (one[patches.to(one.device)] for one in found)
    return {"interp_indices": indices, "interp_weights": weights}


def merged_kept(config: Settings, call: EncoderCall, scores: Tensor, keys: Tensor, features: Tensor) -> None:
    """Merge every image or frame by what is kept of it, and note what was decided and what came out.

    Counts that are fractions are of all its tokens, and no more is retained than is there.

    Args:
        scores, keys: (K,) and (K, d) of the kept tokens, in raster order.
        features: (N, D) of all tokens, zeros where one was left out.
    """
    assert call.blocks is not None
    done, start = [], 0
    for part, places in call.blocks.parts():
        here, places = features[None, part], places.to(features.device)
        few = slice(start, start + len(places))
        encoded = Encoded(scores[None, few], keys[None, few], here[:, places])
        decided = among_all(merge(config, encoded, dynamic=True, whole=here.shape[1]), places, here.shape[1])
        call.decisions.append(decided)
        done.append(merged_in_place(config, decided, here))
        start = few.stop
    call.features, call.sizes = (torch.cat([one[i][0] for one in done]) for i in (0, 1))


def among_all(decided: Merge, places: Tensor, length: int) -> Merge:
    """What was decided about the tokens at `places` (k,) of an image, said of all its `length` tokens."""

    def spread_out(x: Tensor) -> Tensor:
        return x.new_zeros(1, length).index_copy(1, places, x)

    return replace(
        decided,
        scores=spread_out(decided.scores),
        dominant=places[decided.dominant],
        anchors=places[decided.anchors],
        members=places[decided.members],
        weights=None if decided.weights is None else spread_out(decided.weights),
    )
