"""Video-LLaVA: images and videos, with a CLIP-shaped tower each; docs/method.md, 1.7, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from .llava import Llava, LlavaStage1
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD, FrameProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class VideoLlavaStage1(LlavaStage1):
    def images_per_chunk(self, patches: Tensor) -> int:
        """A video may have hundreds of frames."""
        return 1


class VideoLlavaVideoProcessor(FrameProcessor):
    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD, size={"shortest_edge": 224},
        crop_size={"height": 224, "width": 224}, do_center_crop=True,
    )  # fmt: skip


class VideoLlava(Llava, model_types=("video_llava",)):
    """The encoder hands over frames; all frames of a video are one span of stage 2."""

    runs = ("video",)
    downsamples = False
    every_patch = False
    stage1 = VideoLlavaStage1
    video_processor = VideoLlavaVideoProcessor
    towers = ("image_tower", "video_tower")
    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("pixel_values", "pixel_values_images"),  # the second is the older name
        "video": ("pixel_values_videos",),
    }

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        return tokens in (self.visual_tokens(config), self.visual_tokens(config) + 1)  # frames keep CLS
