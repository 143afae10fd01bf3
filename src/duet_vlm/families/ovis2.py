"""Ovis2: tiles whose tokens are mixtures of a table of visual words; the score is the attention that is received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from . import fixed
from .cls_tower import grid

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Ovis2Stage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the tile; zeros elsewhere."""

    @property
    def attention(self) -> Any:
        return self.tower.transformer.encoder.layers[-1].attention

    def pool(self, x: Tensor) -> Tensor:
        squares, stride = x.transpose(1, 2).unflatten(2, grid(self.core.config)), stride_of(self.core.config)
        return avg_pool2d(squares, stride).flatten(2).transpose(1, 2)

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> None:
        if output.ndim == 3:  # afterwards the table is asked for the words that stand around tiles
            super().after_projector(projector, args, output)


def stride_of(config: PreTrainedConfig) -> int:
    """Rows, and columns, of patches that make one visual token."""
    return int(config.vision_config.hidden_stride)


class Ovis2(fixed.Fixed, model_types=("ovis2",)):
    """Words of the table stand between the tiles of an image, so that stage 2 ranks each by itself."""

    runs = ("image",)
    tiled = tiles_apart = True
    layout_options: ClassVar[dict[str, Any]] = {"crop_to_patches": True}
    stage1 = Ovis2Stage1
    projectors = ("visual_embeddings_table", "head_linear", "head_norm")

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        rows, columns = (side // stride_of(config) for side in grid(config))
        return rows * columns
