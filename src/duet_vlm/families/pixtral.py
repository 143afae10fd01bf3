"""Pixtral: images of any size, all of a batch in one row under a mask; the score is the attention that is received.

The tokens that end rows of an image, [IMG_BREAK] and [IMG_END], are text of the prompt: none of them is ever dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import host
from ..config.settings import Settings
from ..host.attention import received
from . import packed
from .blocks import Blocks, filled, in_blocks, patches_of
from .encoding import EncoderCall, Stage1
from .features import check_feature_layer, feature_layer
from .pixel_inputs import Make
from .pixelprune import KeptStage1, Pruning

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class NeedsSizes(Stage1):
    def cannot_follow(self, arguments: dict[str, Any]) -> str | None:
        if arguments.get("image_sizes") is None:
            return "images came without image_sizes, which tell them apart: pass what the processor gives."
        return super().cannot_follow(arguments)


class PixtralStage1(NeedsSizes, packed.PackedStage1):
    """Without a mask, from an image's own patches, scores are those of the image alone."""

    @property
    def attention(self) -> Any:
        return feature_layer(self.core.config, self.tower.transformer.layers).attention

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        return grids_of(self.core.config, call.arguments)

    def block(self, call: EncoderCall) -> packed.Grid:
        return (side_of(self.core.config),) * 2

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        (cos, sin), start = others["position_embeddings"], 0
        gone = call.blocks is not None and not call.blocks.all_kept
        for number, grid in enumerate(self.grids(call)):
            count = int(call.blocks.patches[number].sum()) if call.blocks is not None and gone else grid[0] * grid[1]
            part = slice(start, start + count)
            alone = received(attention, hidden[:, part], position_embeddings=(cos[part], sin[part]))
            self.note(call, grid, *alone[0])
            start = part.stop


class KeptPixtralStage1(NeedsSizes, KeptStage1):
    """The same without scores."""


class PixtralPruning(Pruning):
    """The tower cuts images itself: patches are left out behind that, with their rows and columns of the mask.

    The projector, which joins patches, gets all of them, zeros where some were left out.
    """

    alone = KeptPixtralStage1

    def hook(self) -> list[Any]:
        tower, projector = self.stage.tower, self.stage.projector
        return [
            tower.register_forward_pre_hook(self.before_tower, with_kwargs=True),
            tower.transformer.register_forward_pre_hook(self.before_layers, with_kwargs=True),
            projector.register_forward_pre_hook(self.before_projector),
        ]

    def grids(self, given: dict[str, Any]) -> list[packed.Grid]:
        return grids_of(self.stage.core.config, given)

    def images(self, tower: Any, given: dict[str, Any]) -> list[Tensor]:
        side, patch, found = side_of(self.stage.core.config), tower.patch_size, []
        for pixels, grid in zip(given["pixel_values"], self.grids(given), strict=True):
            image = pixels[:, : grid[0] * patch, : grid[1] * patch]
            cut = image.unflatten(2, (grid[1], patch)).unflatten(1, (grid[0], patch))  # (channels, rows, y, columns, x)
            found.append(in_blocks(cut.permute(1, 3, 0, 2, 4).flatten(3).flatten(0, 1), grid, side))
        return found

    def told(self, tower: Any, given: dict[str, Any], blocks: Blocks) -> dict[str, Any]:
        side, grids = side_of(self.stage.core.config), self.grids(given)
        blocks.patches = [patches_of(kept, grid, side) for kept, grid in zip(blocks.kept, grids, strict=True)]
        return given

    def before_layers(self, transformer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        blocks = self.gone()
        if blocks is None:
            return None
        given, there = host.named_arguments(transformer, args, kwargs), blocks.row_by_row
        mask, rope = given["attention_mask"], given["position_embeddings"]
        given |= {
            "inputs_embeds": given["inputs_embeds"][:, there],
            "position_embeddings": tuple(one[there.to(one.device)] for one in rope),
            "attention_mask": None if mask is None else mask[:, :, there][..., there],
        }
        if "cu_seq_lens_q" in given:
            counts = [int(patches.sum()) for patches in blocks.patches]
            ends = torch.tensor([0, *counts], dtype=torch.int32, device=there.device).cumsum(0, dtype=torch.int32)
            given |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), ends)
            given |= dict.fromkeys(("max_length_q", "max_length_k"), max(counts))
        return (), given

    def before_projector(self, projector: nn.Module, args: Any) -> Any:
        blocks = self.gone()
        if blocks is None:
            return None
        features = args[0]
        whole = filled(features.flatten(0, -2), blocks.row_by_row)
        return whole.unflatten(0, (*features.shape[:-2], -1)), *args[1:]


def side_of(config: PreTrainedConfig) -> int:
    """Rows, and columns, of patches that make one visual token."""
    return int(getattr(config, "spatial_merge_size", 1))


def grids_of(config: PreTrainedConfig, inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of patches of every image of a call or a prompt."""
    patch = config.vision_config.patch_size
    return [(h // patch, w // patch) for h, w in torch.as_tensor(inputs["image_sizes"]).tolist()]


class Pixtral(packed.Packed):
    """What Mistral 3 and LLaVA with a Pixtral tower share."""

    stage1 = PixtralStage1
    pruning = PixtralPruning

    def block(self, config: PreTrainedConfig) -> packed.Grid:
        return (side_of(config),) * 2

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if duet.merges:
            check_feature_layer(config)

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        if inputs.get("image_sizes") is None:
            return None
        side, grid = side_of(config), grids_of(config, inputs)[0]
        # an image processor that was not told of the merging gives rows and columns that a processor rounds up
        rows, columns = (-(-n // side) * side for n in grid)
        return 1, rows, columns

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        patch = config.vision_config.patch_size
        height, width = (n * patch for n in (grid or self.usual_grid(config))[-2:])
        return {"pixel_values": make((count, 3, height, width)), "image_sizes": torch.tensor([[height, width]] * count)}
