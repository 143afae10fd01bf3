"""Video-LLaVA: images and videos, with a CLIP-shaped tower each; METHOD: "Stage 1", 7, frame by frame."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .llava import Llava, LlavaStage1


class VideoLlavaStage1(LlavaStage1):
    def together(self, patches: Tensor) -> int:
        """A video may have hundreds of frames."""
        return 1


class VideoLlava(Llava):
    """The encoder hands over frames; all frames of a video are one span of stage 2."""

    runs = ("video",)
    downsamples = False
    stage1 = VideoLlavaStage1
    towers = ("image_tower", "video_tower")

    def is_whole(self, config: Any, tokens: int) -> bool:
        return tokens in (self.visual_tokens(config), self.visual_tokens(config) + 1)  # frames keep CLS
