"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR: as Qwen2-VL, with videos that stand in a prompt as images.

Four patches become a token in a convolution, before the merger; every block attends across a whole frame. A prompt may
hold images or videos, not both: the stock models look for one placeholder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .qwen2_5_vl import Qwen25VL
from .qwen3_vl import Qwen3VLVideoProcessor
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD
from .video.sampling import Sampling, ends_down

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class EverySecond(Sampling):
    """`rate` frames of every second; of a video that is longer than `maximum` of them, as many, evenly."""

    def __call__(self, total: int, rate: float) -> list[int]:
        if self.count is not None or self.rate is None:
            return super().__call__(total, rate)
        seconds = total / rate
        if seconds * self.rate <= self.maximum:
            times: Any = np.arange(max(int(seconds * self.rate), 1)) / self.rate
        elif self.maximum >= total:
            return list(range(total))
        else:
            times = np.linspace(0, seconds, self.maximum)
        return sorted({min(total - 1, int(np.ceil(time * rate))) for time in times})


class Glm4vVideoProcessor(Qwen3VLVideoProcessor):
    """Bounds for the whole video, and two frames of every second."""

    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD,
        size={"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 2 * 30000},
        max_image_size={"longest_edge": 28 * 28 * 2 * 30000}, patch_size=14, temporal_patch_size=2, merge_size=2,
        max_duration=300, num_frames=16, fps=2, cap_pixels_per_frame=None,
    )  # fmt: skip
    sampling: ClassVar[Sampling] = EverySecond(rate=2.0, maximum=600)

    @classmethod
    def rule(cls, settings: Any) -> Sampling:
        """The stock class does not read `num_frames`."""
        return replace(cls.sampling, rate=settings.fps, maximum=int(settings.max_duration * settings.fps))


@dataclass(frozen=True)
class ByLength(Sampling):
    """Frames of every second of a video: 6 up to half a minute, 2 up to five minutes, 1 beyond; 640 at most."""

    def __call__(self, total: int, rate: float) -> list[int]:
        if self.count is not None:
            return super().__call__(total, rate)
        seconds = total / rate
        counted = min(seconds, 2400)
        wanted = 6 if counted <= 30 else 2 if counted <= 300 else 1
        count = min(int(counted * wanted), 640)
        if total < count:
            return list(range(total))
        # the first frame of every part of a second, up to the last whole second
        found, due = [], 0.0
        for place in range(total):
            if place * (1 / rate) >= due:
                found.append(place)
                due += 1 / wanted
                if due >= int(seconds):
                    break
        if len(found) < count:
            return sorted({found[0] + place for place in ends_down(found[-1] - found[0] + 1, count)})
        return found if len(found) == count else sorted(set(ends_down(total, count)))


class Glm46VVideoProcessor(Glm4vVideoProcessor):
    """The same, with fewer frames of every second of a longer video."""

    sampling = ByLength()

    @classmethod
    def rule(cls, settings: Any) -> Sampling:
        """The stock class reads no setting."""
        return cls.sampling


class Glm4v(Qwen25VL, model_types=("glm4v", "glm4v_moe")):
    """The merger is a part of the tower."""

    projectors = ("downsample", "merger")
    video_processor = Glm4vVideoProcessor

    def placeholders(self, config: PreTrainedConfig) -> dict[str, int]:
        """A frame of a video is written as an image."""
        return dict.fromkeys(("image", "video"), config.image_token_id)


class Glm46V(Glm4v, model_types=("glm46v", "glm_ocr")):
    video_processor = Glm46VVideoProcessor
