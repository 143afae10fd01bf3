"""Stand-ins for transformers' video processors, which need torchvision: the same settings, the same tensors.

Each sits in the slot of its stock processor, so that the prompt (placeholders, timestamps, token types) stays stock.
The settings are those of the stock classes of transformers 5.23; a model's own files overrule them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.video_utils import VideoMetadata

from . import pixels
from .sampling import Sampling

BILINEAR, BICUBIC, LANCZOS = 2, 3, 1  # PIL's numbers
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALVES = [0.5, 0.5, 0.5]
KINDS = ("_processor_type", "processor_class")  # names of classes in a model's files

try:
    from transformers.video_processing_utils import VideoProcessorMixin
except ImportError:  # older than the engine runs on, where settings and budgets are all that is asked of a family
    VideoProcessorMixin = object  # type: ignore[assignment, misc]


class FrameProcessor(VideoProcessorMixin):
    """Frames resized to one size, cropped where the model does, and normalised: (B, T, 3, H, W) float32.

    Attributes:
        published: the settings of the stock class.
        sampling: which frames a model is shown where its files do not tell.
    """

    published: ClassVar[dict[str, Any]] = {}
    sampling: ClassVar[Sampling] = Sampling(count=8)
    model_input_names = ["pixel_values_videos"]  # noqa: RUF012
    size: Any

    if TYPE_CHECKING:  # settings are attributes

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **settings: Any):
        # a None in a model's files means the class's setting, as in the stock classes
        own = {key: value for key, value in settings.items() if value is not None and not key.endswith(KINDS)}
        common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False}
        merged = {"rescale_factor": 1 / 255, "num_frames": None, "fps": None, **common, **self.published, **own}
        for name, value in merged.items():
            setattr(self, name, value)

    @classmethod
    def read(cls, source: str) -> FrameProcessor:
        """With the settings of a folder or hub id."""
        return cls(**cls.get_video_processor_dict(source)[0])

    @classmethod
    def rule(cls, settings: Any) -> Sampling:
        """Which frames of a video to show: what a processor's settings say, or its family's habit."""
        count, rate, rule = settings.num_frames, settings.fps, cls.sampling
        if count is None and rate is None:
            return rule
        minimum, maximum = getattr(settings, "min_frames", rule.minimum), getattr(settings, "max_frames", rule.maximum)
        return replace(rule, count=count, rate=rate, minimum=minimum, maximum=maximum)

    def __call__(self, videos: Any, **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        """Prepare videos of (T, H, W, 3) uint8 frames each; of the options only `video_metadata` counts."""
        prepared = [self.prepare(torch.from_numpy(video).permute(0, 3, 1, 2).contiguous()) for video in videos]
        data: dict[str, Any] = {name: self.joined(name, [one[name] for one in prepared]) for name in prepared[0]}
        if kwargs.get("video_metadata"):
            data["video_metadata"] = [VideoMetadata(**dict(one)) for one in kwargs["video_metadata"]]
        return BatchFeature(data)

    def joined(self, name: str, tensors: list[Tensor]) -> Tensor:
        """One tensor of those of every video."""
        return torch.stack(tensors)

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        """The model's inputs of one video, (T, 3, H, W) uint8."""
        if self.do_resize:
            height, width = self.target(*frames.shape[-2:])
            frames = pixels.resize(frames, height, width, self.resample)
        if self.do_center_crop:
            frames = pixels.center_crop(frames, *_sides(self.crop_size))
        return {"pixel_values_videos": self.normalized(frames)}

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to resize a frame to."""
        if isinstance(self.size, dict) and "shortest_edge" in self.size:
            return pixels.shortest_edge(height, width, self.size["shortest_edge"])
        return _sides(self.size)

    def normalized(self, frames: Tensor) -> Tensor:
        """uint8 -> float32."""
        scale = self.rescale_factor if self.do_rescale else 1
        if self.do_normalize:
            return pixels.normalize(frames, self.image_mean, self.image_std, scale)
        return frames * scale


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of a size as a file gives it: a dict, or one number for both."""
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])
