"""Qwen2.5-VL and Qwen2-VL: images and video of any resolution, merged behind the 2 x 2 merger, a frame at a time.

docs/method.md, 1.1, 1.5 and 1.7. The scoring layer is the last block that attends across a whole frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from ..stage1 import Encoded
from .encoding import EncoderCall, Stage1
from .family import Family
from .frames import merged_frames
from .pixel_inputs import Make
from .pixelprune import Pruning, merged_kept
from .refusals import refuse_renumbering
from .taps import Tap
from .video import pixels
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD, FrameProcessor
from .video.sampling import Sampling, starts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 24  # rows and columns of visual tokens of the image that is timed, as many as LLaVA-1.5's have


def scoring_block(config: PreTrainedConfig) -> int:
    """The tower's last block with full attention; all have it where the config names none."""
    full = getattr(config.vision_config, "fullatt_block_indexes", None)
    return int(max(full) if full else config.vision_config.depth - 1)


class QwenStage1(Stage1):
    """Retained tokens stay at their places in the frame; zeros elsewhere.

    Scores are made while the scoring attention is called, a segment (image, frame) at a time and streamed over query
    blocks, so no n x n map is made and nothing of that size outlives the call.
    """

    @property
    def attention(self) -> Any:
        return self.tower.blocks[scoring_block(self.core.config)].attn

    def pool(self, x: Tensor) -> Tensor:
        """The four patches of a merged token follow each other."""
        patches: Tensor = x.unflatten(1, (-1, self.core.config.vision_config.spatial_merge_size**2))
        return patches.mean(2)

    def taps(self) -> list[Any]:
        return Tap(self).hook(self.tower, self.attention)

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        for scores, keys in received(attention, hidden, **others):
            call.scores.append(self.pool(scores[..., None])[..., 0])
            call.keys.append(self.pool(keys))

    def after_tower(self, call: EncoderCall, tower: Any, output: Any) -> None:
        side = tower.config.spatial_merge_size
        # some towers are given each frame of a video as an image
        grids = call.arguments.get("video_grid_thw", call.tower_kwargs["grid_thw"])
        scores, keys = torch.cat(call.scores, 1)[0], torch.cat(call.keys, 1)[0]
        gone = call.blocks is not None and not call.blocks.all_kept
        order = call.blocks.order if call.blocks is not None and gone else image_order(tower, grids)
        if order is not None:
            scores, keys = scores[order], keys[order]
        if gone:
            return merged_kept(self.config, call, scores, keys, output.pooler_output)
        features, start, parts = output.pooler_output, 0, []
        for frames, rows, columns in grids.tolist():
            shape = int(rows) // side, int(columns) // side
            part = slice(start, start + int(frames) * shape[0] * shape[1])
            video = Encoded(scores[None, part], keys[None, part], features[None, part], shape, int(frames))
            parts += merged_frames(self.config, call, video)
            start = part.stop
        call.features, call.sizes = (torch.cat([part[i] for part in parts]) for i in (0, 1))


def image_order(visual: Any, grid_thw: Tensor) -> Tensor | None:
    """(n,) where each merged token, in raster order, stands among the tower's windows; None where it has none."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    from transformers.vision_utils import get_vision_window_index

    window_index, _ = get_vision_window_index(
        grid_thw, visual.spatial_merge_size, visual.window_size, visual.patch_size
    )
    return torch.argsort(window_index).to(grid_thw.device)


class Qwen2VLVideoProcessor(FrameProcessor):
    """Frames in multiples of a merged patch, cut into patches of two frames each."""

    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD,
        size={"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768}, patch_size=14, temporal_patch_size=2,
        merge_size=2, min_frames=4, max_frames=768, cap_pixels_per_frame=None, max_video_tokens=128000,
    )  # fmt: skip
    sampling = Sampling(starts, rate=2.0, minimum=4, maximum=768, multiple=2)
    model_input_names = ["pixel_values_videos", "video_grid_thw"]  # noqa: RUF012

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        # older files name the bounds so
        minimum, maximum = settings.get("min_pixels"), settings.get("max_pixels")
        self.size = dict(self.size) | {
            name: value for name, value in (("shortest_edge", minimum), ("longest_edge", maximum)) if value is not None
        }

    @property
    def factor(self) -> int:
        """Pixels of a merged token's side."""
        return int(self.patch_size * self.merge_size)

    def joined(self, name: str, tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors)

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        if self.do_resize:
            height, width = self.bounded(len(frames), *frames.shape[-2:])
            frames = pixels.resize(frames, height, width, self.resample)
        flat, grid = pixels.patches(self.normalized(frames), self.patch_size, self.merge_size, self.temporal_patch_size)
        return {"pixel_values_videos": flat, "video_grid_thw": torch.tensor([grid])}

    def bounded(self, count: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of each of `count` frames."""
        minimum, maximum = self.size["shortest_edge"], self.size["longest_edge"]
        if self.cap_pixels_per_frame:
            budget = int(self.max_video_tokens * self.factor**2 * 0.9)
            maximum = max(min(maximum, budget * self.temporal_patch_size // count), int(minimum * 1.05))
        return pixels.whole_patches(height, width, self.factor, minimum, maximum)


class Qwen25VL(Family, model_types=("qwen2_5_vl", "qwen2_vl")):
    positions = "keep"
    position_axes = 3
    dynamic = whole_videos = True
    keep_ratios = (0.5, 0.25)
    video_processor: type[FrameProcessor] | None = Qwen2VLVideoProcessor
    stage1: type[Stage1] = QwenStage1
    pruning: type[Pruning] | None = Pruning
    towers: tuple[str, ...] = ("visual",)
    projectors: tuple[str, ...] = ("merger", "deepstack_merger_list")

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        tokens: int = frames * rows * columns // config.vision_config.spatial_merge_size**2
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        grids = inputs.get("image_grid_thw", inputs.get("video_grid_thw"))
        return None if grids is None else (1, *grids[0].tolist()[1:])

    def frames_together(self, processor: Any) -> int:

        return int(processor.video_processor.temporal_patch_size)

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> tuple[int, int]:
        grid, side = self.grid_of(config, inputs), config.vision_config.spatial_merge_size
        if grid is None:
            raise DuetError("there is no picture in this prompt: give inputs with image_grid_thw.")
        return grid[1] // side, grid[2] // side

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int]:
        return (SIDE * config.vision_config.spatial_merge_size,) * 2

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Flat patches of all images, one after the other."""
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        thw = torch.tensor([[1, rows, columns]] * count)
        return {"pixel_values": make((count * rows * columns, values)), "image_grid_thw": thw}

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        side = 4 * config.vision_config.spatial_merge_size
        return self.pixels(config, torch.ones, grid=(side, side))

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        kinds = (ids == config.image_token_id).long()
        return {"mm_token_type_ids": kinds, "image_grid_thw": pixels["image_grid_thw"]}

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_renumbering(config, duet, "its positions have three axes")
