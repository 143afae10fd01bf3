"""SmolVLM and Idefics3: tiles, each merged behind the connector; the score is the attention that a patch receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..host.attention import received
from . import fixed
from .encoding import EncoderCall
from .pixel_inputs import Make
from .video import pixels
from .video.processors import HALVES, LANCZOS, FrameProcessor
from .video.sampling import Sampling, ends_down

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class SmolVLMStage1(fixed.FixedStage1):
    def score(self, call: EncoderCall, image: int) -> tuple[Tensor, Tensor]:
        """Score as if the tile's padding were not there: it neither gives nor receives attention."""
        hidden, real = call.hidden[image : image + 1], call.tower_kwargs["patch_attention_mask"][image].flatten()
        scores, keys = received(self.attention, hidden[:, real])[0]
        places = real.nonzero()[:, 0]
        whole = keys.new_zeros(1, len(real), 1 + keys.shape[2])
        whole[:, places, 0], whole[:, places, 1:] = scores, keys
        return whole[..., 0], whole[..., 1:]

    def pool(self, x: Tensor) -> Tensor:
        connector = self.projector
        return fixed.mean_of_groups(connector.pixel_shuffle(x, connector.scale_factor), x.shape[2])


class SmolVLMVideoProcessor(FrameProcessor):
    """Frames squeezed into one square; (B, T, 3, H, W) with a mask (B, T, H, W) of real pixels."""

    published: ClassVar[dict[str, Any]] = dict(
        resample=LANCZOS, image_mean=HALVES, image_std=HALVES, size={"longest_edge": 4 * 364},
        max_image_size={"longest_edge": 364},
    )  # fmt: skip
    sampling = Sampling(ends_down, count=64, rate=1.0, skip=1.0)
    model_input_names = ["pixel_values", "pixel_attention_mask"]  # noqa: RUF012

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        rule = settings.get("video_sampling")
        if rule:
            self.num_frames, self.fps = rule["max_frames"], rule["fps"]
            self.size = settings.get("size") or rule["video_size"]

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        if self.do_resize:
            height, width = frames.shape[-2:]
            height, width = pixels.longest_edge(height, width, min(self.size["longest_edge"], 4096))
            frames = pixels.resize(frames, height, width, self.resample)
            side = self.max_image_size["longest_edge"]
            frames = pixels.resize(frames, side, side, self.resample)
        mask = torch.ones(len(frames), *frames.shape[-2:], dtype=torch.int64)
        return {"pixel_values": self.normalized(frames), "pixel_attention_mask": mask}


class SmolVLM(fixed.Fixed, model_types=("smolvlm",)):
    """Spans of stage 2 are runs: every tile and every frame of a video, since text stands between them."""

    runs = ("image",)
    tiled = tiles_apart = True
    video_processor: type[FrameProcessor] | None = SmolVLMVideoProcessor
    stage1 = SmolVLMStage1
    towers = ("vision_model",)
    projectors = ("connector",)
    pixel_masks = ("pixel_attention_mask",)

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        side = config.vision_config.image_size // config.vision_config.patch_size
        return int(side**2 // config.scale_factor**2)

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The tiles of an image have an axis of their own, and a mask tells pixels from padding."""
        channels, height, width = self.crop_size(config)
        mask = torch.ones(count, tiles, height, width, dtype=torch.bool)
        return {"pixel_values": make((count, tiles, channels, height, width)), "pixel_attention_mask": mask}


class Idefics3(SmolVLM, model_types=("idefics3",)):
    """The same without videos."""

    video_processor = None
