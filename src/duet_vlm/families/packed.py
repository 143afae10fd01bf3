"""Images of any size whose patches come row by row, in blocks that make one visual token; the score is that received.

Stage 1 merges what the encoder hands over, an image, tile or frame at a time; docs/method.md, 1.1, 1.5 and 1.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..errors import DuetError
from ..host.attention import received
from . import fixed
from .blocks import filled
from .encoding import EncoderCall
from .family import Family
from .pixelprune import merged_kept

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 24  # rows and columns of visual tokens of the image that is timed, as many as LLaVA-1.5's have

Grid = tuple[int, int]


class PackedStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image; zeros elsewhere.

    Scores are made while the scoring attention is called, of one image at a time. A family says which attention that
    is, and how patches lie before it.
    """

    dynamic = True

    def grids(self, call: EncoderCall) -> list[Grid]:
        """Rows and columns of patches of every image, tile or frame, as the scoring attention has them."""
        raise NotImplementedError

    def block(self, call: EncoderCall) -> Grid:
        """Rows and columns of these patches that make one visual token."""
        raise NotImplementedError

    def taps(self) -> list[Any]:
        return self.tower_taps()

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        for grid, segment in zip(self.grids(call), received(attention, hidden, **others), strict=True):
            self.note(call, grid, *segment)

    def note(self, call: EncoderCall, grid: Grid, scores: Tensor, keys: Tensor) -> None:
        """Average scores (1, patches) and keys (1, patches, d) of one image over the patches of a visual token."""
        patches, number = torch.cat([scores[..., None].to(keys), keys], dim=2), len(call.scores)
        gone = call.blocks is not None and not call.blocks.all_kept
        if call.blocks is not None and gone:
            patches = filled(patches[0], call.blocks.patches[number].flatten())[None]
        tokens = avg_pool2d(patches.transpose(1, 2).unflatten(2, grid), self.block(call)).flatten(2).transpose(1, 2)
        if call.blocks is not None and gone:
            tokens = tokens[:, call.blocks.kept[number].flatten().to(tokens.device)]
        call.scores.append(tokens[..., 0])
        call.keys.append(tokens[..., 1:])

    def after_encoder(self, call: EncoderCall, output: Any) -> None:
        if not call.scores:  # an encoder that has called another one, which is done
            return
        start, parts, (high, wide) = 0, [], self.block(call)
        features = torch.cat([images.flatten(0, -2) for images in output.pooler_output])
        if call.blocks is not None and not call.blocks.all_kept:
            scores, keys = torch.cat(call.scores, 1)[0], torch.cat(call.keys, 1)[0]
            return merged_kept(self.config, call, scores.to(features.device), keys.to(features.device), features)
        for (rows, columns), scores, keys in zip(self.grids(call), call.scores, call.keys, strict=True):
            part = slice(start, start + keys.shape[1])
            statistics = torch.cat([scores[..., None], keys], dim=2)
            parts.append(self.merged(call, statistics, features[None, part], (rows // high, columns // wide)))
            start = part.stop
        call.features, call.sizes = (torch.cat([part[i][0] for part in parts]) for i in (0, 1))


class Packed(Family):
    """A family whose images have any number of visual tokens, each a block of patches."""

    dynamic = True

    def block(self, config: PreTrainedConfig) -> Grid:
        """Rows and columns of patches that make one visual token."""
        raise NotImplementedError

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        (frames, rows, columns), (high, wide) = (1, *grid)[-3:], self.block(config)
        tokens = frames * (rows // high) * (columns // wide)
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def crops_in(self, inputs: Any) -> Tensor | None:
        return None  # pictures whole, however they are padded to a batch

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> Grid:
        grid, (high, wide) = self.grid_of(config, inputs), self.block(config)
        if grid is None:
            raise DuetError("there is no picture in this prompt: give inputs as the processor makes them of one.")
        return grid[1] // high, grid[2] // wide

    def usual_grid(self, config: PreTrainedConfig) -> Grid:
        high, wide = self.block(config)
        return SIDE * high, SIDE * wide

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        high, wide = self.block(config)
        return self.pixels(config, torch.ones, grid=(4 * high, 4 * wide))
