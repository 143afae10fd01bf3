"""Gemma 4: images of any size up to a budget of 70 to 1120 tokens, padded to it; k x k patches are one visual token.

What is padding has the position (-1, -1) and neither gives nor receives attention. The unified model has no tower: its
patches of k x k times the area are projected, each a visual token, so there is no attention that could score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config.registry import STAGE1, called
from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from . import fixed
from .encoding import EncoderCall
from .family import Family
from .pixel_inputs import Make
from .refusals import refuse_renumbering
from .taps import Tap
from .video.padded import Gemma4UnifiedVideoProcessor, Gemma4VideoProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 24  # rows and columns of visual tokens of the image that is timed, as many as LLaVA-1.5's have
SEEN = ("features", "grid")  # what a stage 1 may need where no attention scores


class Gemma4Stage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image or frame; zeros elsewhere.

    Scores are made while the scoring attention is called, of one image at a time: without a mask, from its own patches.
    """

    dynamic = True

    def taps(self) -> list[Any]:
        attention = self.tower.encoder.layers[-1].self_attn
        return [*Tap(self).hook(self.tower, attention), self.projector.register_forward_hook(self.after_projector)]

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        cos, sin = others["position_embeddings"]
        for number, places in enumerate(call.tower_kwargs["pixel_position_ids"]):
            there = (places >= 0).all(1)
            rope = cos[number, there][None], sin[number, there][None]
            own = dict(position_embeddings=rope, position_ids=places[there][None])
            scores, keys = received(attention, hidden[number, there][None], **own)[0]
            statistics = torch.cat([scores[..., None].to(keys), keys], dim=2)
            call.scores.append(averaged(statistics, places[there], side_of(self.core.config)))

    def after_projector(self, projector: nn.Module, args: Any, output: Any) -> None:
        call = self.call()
        if call is not None:
            side, images = side_of(self.core.config), call.tower_kwargs["pixel_position_ids"]
            self.merge_each(call, [grid_in(places, side) for places in images], call.scores, output)

    def merge_each(
        self, call: EncoderCall, grids: list[tuple[int, int]], statistics: list[Tensor], features: Tensor
    ) -> None:
        """Merge the (total, D) features of all images, one by one, by each one's statistics (1, n, 1 + d)."""
        parts, start = [], 0
        for grid, found in zip(grids, statistics, strict=True):
            part = slice(start, start + found.shape[1])
            parts.append(self.merged(call, found, features[None, part], grid))
            start = part.stop
        call.features, call.sizes = (torch.cat([part[i][0] for part in parts]) for i in (0, 1))


class UnifiedStage1(Gemma4Stage1):
    """Methods that need no score see features alone: scores are 0, and keys the features."""

    def taps(self) -> list[Any]:
        return [self.projector.register_forward_hook(self.after_projector, with_kwargs=True)]

    def after_projector(self, projector: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # type: ignore[override]
        call = self.call()
        if call is None:
            return
        places = kwargs["image_position_ids"] if "image_position_ids" in kwargs else args[1]
        there = (places >= 0).all(2).to(output.pooler_output.device)
        features = output.pooler_output[there]
        images = features[None].split(there.sum(1).tolist(), dim=1)
        found = [torch.cat([torch.zeros_like(one[..., :1]), one], 2) for one in images]
        self.merge_each(call, [grid_in(one, 1) for one in places], found, features)


def side_of(config: PreTrainedConfig) -> int:
    """Rows, and columns, of patches that make one visual token."""
    return int(config.vision_config.pooling_kernel_size)


def grid_in(places: Tensor, side: int) -> tuple[int, int]:
    """Rows and columns of visual tokens of an image with patches at `places` (N, 2), as (x, y); -1 is padding."""
    columns, rows = ((places.amax(0) + 1) // side).tolist()
    return rows, columns


def averaged(x: Tensor, places: Tensor, side: int) -> Tensor:
    """Average over the patches that make one visual token: (1, N, C) at `places` (N, 2) -> (1, n, C)."""
    rows, columns = grid_in(places, side)
    token = places[:, 0] // side + columns * (places[:, 1] // side)
    return x.new_zeros(1, rows * columns, x.shape[2]).index_add(1, token.to(x.device), x) / side**2


class Gemma4(Family, model_types=("gemma4",)):
    """Windows and the two-way attention inside an image are in the stock masks, which speak of the full sequence."""

    positions = "keep"
    dynamic = True
    keep_ratios = (0.5, 0.25)
    pixel_masks = ("image_position_ids", "video_position_ids", "num_frames_per_video")
    projectors = ("embed_vision",)
    video_processor = Gemma4VideoProcessor
    stage1 = Gemma4Stage1

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_renumbering(config, duet, "its layers have rotary embeddings of two kinds, and windows of positions")
        if config.get_text_config().use_bidirectional_attention == "all":
            raise DuetError(
                f"this {config.model_type} attends both ways everywhere (use_bidirectional_attention 'all'), and "
                "visual tokens are ranked by causal attention: use a model without it."
            )

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        tokens = frames * (rows // side_of(config)) * (columns // side_of(config))
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        places = inputs.get("image_position_ids", inputs.get("video_position_ids"))
        if places is None:
            return None
        rows, columns = grid_in(torch.as_tensor(places[0]), 1)
        return 1, rows * self.spread(config), columns * self.spread(config)

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> tuple[int, int]:
        grid, side = self.grid_of(config, inputs), side_of(config)
        if grid is None:
            raise DuetError("there is no picture in this prompt: give inputs with image_position_ids.")
        return grid[1] // side, grid[2] // side

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int]:
        return (SIDE * side_of(config),) * 2

    def spread(self, config: PreTrainedConfig) -> int:
        """Rows, and columns, of patches at one position."""
        return 1

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        spread, vision = self.spread(config), config.vision_config
        rows, columns = (n // spread for n in (grid or self.usual_grid(config))[-2:])
        x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
        places = torch.stack([x, y], -1).flatten(0, 1)
        values = 3 * (vision.patch_size * spread) ** 2
        return {
            "pixel_values": make((count, rows * columns, values)), "image_position_ids": places.repeat(count, 1, 1)
        }  # fmt: skip

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        side = 4 * side_of(config)
        return self.pixels(config, torch.ones, grid=(side, side))

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == config.image_token_id).long()}


class Gemma4Unified(Gemma4, model_types=("gemma4_unified",)):
    towers = ("embed_vision",)
    video_processor = Gemma4UnifiedVideoProcessor
    stage1 = UnifiedStage1

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        super().check(config, duet)
        if not duet.merges:
            return
        row = duet.stage1_method
        if duet.diverse or not {*row.needs} <= {*SEEN}:
            able = ", ".join(name for name, one in STAGE1.items() if one.at == "encoder" and {*one.needs} <= {*SEEN})
            what = "diverse" if duet.diverse else f"merging {called(duet.merging)}"
            raise DuetError(
                f"{what} needs attention of a vision encoder, and a gemma4_unified has none: merge with one of {able}, "
                "or use stage 2 alone (dominant=None)."
            )

    def spread(self, config: PreTrainedConfig) -> int:
        return side_of(config)
