"""Llama 4: tiles, merged behind the tower's adapter, which shuffles pixels; the CLS token, the last one, scores.

Features go through the projector, which is linear and without a bias, once the language model's input is made: what is
zero stays so. Layers see a chunk of the whole prompt's positions, every fourth sees all and has no rotary embedding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..host.attention import keys, queries
from ..tensors.streamed import column_sums
from . import fixed
from .encoding import EncoderCall

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Llama4Stage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the tile; zeros elsewhere."""

    @property
    def attention(self) -> Any:
        return self.tower.model.layers[-1].self_attn

    @property
    def projector(self) -> Any:
        return self.tower.vision_adapter

    @torch.no_grad()
    def score(self, call: EncoderCall, image: int) -> tuple[Tensor, Tensor]:
        hidden = call.hidden[image : image + 1]
        rotations = self.tower.rotary_embedding(hidden)
        query, softmax = queries(self.attention, hidden[:, -1:], freqs_ci=rotations[-1:])
        key = keys(self.attention, hidden, freqs_ci=rotations)
        scores = column_sums(query, key, softmax)[:, :-1] * query.shape[1]
        return scores, key[:, :, :-1].float().mean(1)

    def pool(self, x: Tensor) -> Tensor:
        side, rows = round(1 / self.projector.pixel_shuffle_ratio), math.isqrt(x.shape[1])
        squares = avg_pool2d(x.transpose(1, 2).unflatten(2, (rows, rows)), side)
        return squares.flatten(2).transpose(1, 2)


class Llama4(fixed.Fixed, model_types=("llama4",)):
    """Text stands between the tiles of an image, so that stage 2 ranks each by itself."""

    runs = ("image",)
    tiled = tiles_apart = True
    features = "last_hidden_state"
    towers = ("vision_model",)
    projectors = ("vision_adapter", "multi_modal_projector")
    stage1 = Llama4Stage1

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        vision = config.vision_config
        return int(vision.image_size // vision.patch_size * vision.pixel_shuffle_ratio) ** 2
