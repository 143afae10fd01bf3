"""LLaVA-NeXT-Video: images as in LLaVA-NeXT, and videos whose frames are pooled before the projector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..config.budget import stage1_counts
from . import cls_tower, encoding
from .encoding import EncoderCall
from .llava_next import LlavaNext, LlavaNextStage1, Share, share_of
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD, FrameProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class LlavaNextVideoStage1(LlavaNextStage1):
    """A frame of n pooled patches retains (K1 + K2) n / N, as a crop of n patches without padding does.

    Scores and keys are averaged over the patches that are pooled to one token, whichever way these are pooled.
    """

    def shares(self, call: EncoderCall) -> list[Share]:
        if not shows_video(call):
            return super().shares(call)
        if call.shares is None:
            rows, columns = frame_grid(self.core.config)
            counts = stage1_counts(self.config, cls_tower.count_patches(self.core.config))
            left = tuple(range(rows * columns))
            share = share_of(left, (rows, columns), counts, 0, cls_tower.count_patches(self.core.config))
            aging = self.config.history is not None
            call.shares = [
                share.older(self.config) if aging and call.is_older(len(left)) else share for _ in call.hidden
            ]
        return call.shares

    def images_per_chunk(self, patches: Tensor) -> int:
        """A video may have hundreds of frames."""
        return 1

    def patches(self, call: EncoderCall) -> Tensor:
        patches = super().patches(call)
        if not shows_video(call):
            return patches
        with encoding.paused():
            pooled: Tensor = self.core.vision_resampler(patches)
        return pooled

    def statistics(self, layer: Any, call: EncoderCall, part: slice) -> tuple[Tensor, Tensor]:
        scores, keys = super().statistics(layer, call, part)
        if not shows_video(call):
            return scores, keys
        return self.averaged(scores[..., None])[..., 0], self.averaged(keys)

    def averaged(self, x: Tensor) -> Tensor:
        """Average over the patches that are pooled to one token: (B, patches, C) -> (B, n, C)."""
        squares = x.transpose(1, 2).unflatten(2, cls_tower.grid(self.core.config))
        return avg_pool2d(squares, self.core.config.spatial_pool_stride).flatten(2).transpose(1, 2)


def shows_video(call: EncoderCall) -> bool:
    """Whether the encoder was called for a video."""
    return "pixel_values_videos" in call.arguments


def frame_grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Rows and columns of visual tokens of a frame."""
    rows, columns = cls_tower.grid(config)
    return rows // config.spatial_pool_stride, columns // config.spatial_pool_stride


class LlavaNextVideoVideoProcessor(FrameProcessor):
    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD, size={"shortest_edge": 224},
        crop_size={"height": 224, "width": 224}, do_center_crop=True,
    )  # fmt: skip


class LlavaNextVideo(LlavaNext, model_types=("llava_next_video",)):
    """All frames of a video are one span of stage 2."""

    downsamples = False
    stage1 = LlavaNextVideoStage1
    video_processor = LlavaNextVideoVideoProcessor

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        rows, columns = frame_grid(config)
        return super().is_whole(config, tokens) or tokens % (rows * columns) == 0
