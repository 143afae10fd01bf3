"""Qwen3-VL, dense or of experts: Qwen2-VL with early visual features (deepstack) that follow the kept places."""

from __future__ import annotations

from typing import Any, ClassVar

from .pixelprune import Pruning
from .qwen2_5_vl import Qwen2VLVideoProcessor, Qwen25VL
from .video import pixels
from .video.processors import BICUBIC, HALVES, FrameProcessor
from .video.sampling import Sampling, ends


class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
    """The same with bounds for the whole video."""

    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=HALVES, image_std=HALVES,
        size={"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768}, patch_size=16, temporal_patch_size=2,
        merge_size=2, min_frames=4, max_frames=768, cap_pixels_per_frame=None, max_video_tokens=768, fps=2,
    )  # fmt: skip
    sampling = Sampling(ends, rate=2.0, minimum=4, maximum=768)

    def bounded(self, count: int, height: int, width: int) -> tuple[int, int]:
        minimum, maximum = self.size["shortest_edge"], self.size["longest_edge"]
        if self.cap_pixels_per_frame:
            share = min(self.max_video_tokens * self.factor**2, maximum // count)
            maximum = max(share, int(minimum * 1.05)) * count
        if min(height, width) < self.factor:
            grow = max(self.factor / height, self.factor / width)
            height, width = int(height * grow), int(width * grow)
        multiple = self.temporal_patch_size
        return pixels.whole_patches(height, width, self.factor, minimum, maximum, max(count, multiple), multiple)


class Qwen3Pruning(Pruning):
    std = tuple(HALVES)


class Qwen3VL(Qwen25VL, model_types=("qwen3_vl", "qwen3_vl_moe")):
    """Each block attends across a whole frame; the decoder adds deepstack features after its first layers."""

    video_processor: type[FrameProcessor] | None = Qwen3VLVideoProcessor
    pruning: type[Pruning] | None = Qwen3Pruning
