"""LLaVA-OneVision: AnyRes images, merged as packed, and videos, merged as pooled, a frame at a time.

The score is the attention that a patch receives. Packing cuts padding off, may interpolate, and ends rows with
newlines; scores and keys are packed by the same stock method, so that they stay beside their tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..config.settings import Settings
from ..errors import DuetError
from ..host.refs import wrap
from . import fixed
from .anyres import AnyRes
from .encoding import EncoderCall, Outcome
from .features import check_feature_layer
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD, FrameProcessor
from .video.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class LlavaOneVisionStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the packed image or the frame; zeros elsewhere, newlines included."""

    dynamic = True

    def taps(self) -> list[Any]:
        return [
            *self.tower_taps(),
            wrap(self.core, "pack_image_features", self.around_packing),
            wrap(self.core, "apply_pooling", self.around_pooling),
        ]

    def around_packing(
        self, pack: Any, image_features: Any, image_sizes: Any, image_newline: Tensor | None = None, **how: Any
    ) -> Any:
        """Pack as stock does, then merge every image, its base crop and tiles together."""
        packed, lengths = pack(image_features, image_sizes, image_newline, **how)
        call, parts, done = self.call(), [], 0
        if call is None:
            return packed, lengths
        for number, (crops, features) in enumerate(zip(image_features, packed, strict=True)):
            statistics = torch.cat([self.statistics(call, done + i) for i in range(len(crops))])
            done += len(crops)
            # one more channel, in which newlines alone are not 0
            newline = None if image_newline is None else pad(statistics.new_ones(1), (statistics.shape[2], 0))
            size = image_sizes[number : number + 1]
            (statistics,), _ = pack([pad(statistics, (0, 1))], size, newline, **how)
            statistics = statistics.to(features.device)
            places = (statistics[:, -1] == 0).nonzero()[:, 0]
            tokens, sizes = self.merged(
                call, statistics[None, places, :-1], features[None, places], None, length=len(features)
            )
            parts.append(
                (
                    tokens.new_zeros(features.shape).index_copy(0, places, tokens[0]),
                    sizes.new_zeros(len(features)).index_copy(0, places, sizes[0]),
                )
            )
        call.features, call.sizes = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        return packed, lengths

    def around_pooling(self, pooling: Any, image_features: Tensor) -> Tensor:
        """Pool as stock does, then merge every frame, or every video."""
        pooled: Tensor = pooling(image_features)
        call = self.call()
        if call is not None:
            self.merge_images(call, pooled)
        return pooled

    def together(self, call: EncoderCall) -> int:
        return int(call.arguments["pixel_values_videos"].shape[1]) if self.config.stage1_method.whole_videos else 1

    def outcome(self, call: EncoderCall, output: Any) -> Outcome:
        videos = output.pooler_output
        if isinstance(videos, Tensor) and call.features is not None and call.sizes is not None:
            # stock puts a newline behind the frames of a video, which goes
            frames = call.features.unflatten(0, (len(videos), -1))
            call.features = pad(frames, (0, 0, 0, 1)).flatten(0, 1)
            call.sizes = pad(call.sizes.unflatten(0, (len(videos), -1)), (0, 1)).flatten()
        return super().outcome(call, output)

    def pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = type(self.core).apply_pooling(self.core, x)
        return pooled


def side_of(config: PreTrainedConfig) -> int:
    """Rows of patches of one crop."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def shrunk(config: PreTrainedConfig, grid: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that stock packs an image's tiles into, which hold so many rows and columns of patches."""
    rows, columns = grid[-2:]
    maximum = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * columns / (maximum * side_of(config) ** 2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


class LlavaOnevisionVideoProcessor(FrameProcessor):
    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD, size={"height": 384, "width": 384}
    )
    sampling = Sampling(count=32)


class LlavaOneVision(AnyRes, model_types=("llava_onevision",)):
    dynamic = whole_videos = True
    crops_together = True
    video_processor = LlavaOnevisionVideoProcessor
    stage1 = LlavaOneVisionStage1

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        """Count an image whose tiles hold so many rows and columns, base crop included; or one frame of a video."""
        if len(grid) == 3 and grid[0] > 1:
            return math.ceil(side_of(config) / 2) ** 2
        rows, columns = shrunk(config, grid)
        return side_of(config) ** 2 + rows * columns

    def row_ends(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        return 1 if len(grid) == 3 and grid[0] > 1 else shrunk(config, grid)[0]

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        frame = math.ceil(side_of(config) / 2) ** 2
        return tokens >= side_of(config) ** 2 or (tokens > 1 and tokens % frame == 1)

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if not duet.merges:
            return
        check_feature_layer(config)
        kind, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
        if kind != "siglip_vision_model" or strategy != "full":
            raise DuetError(
                f"stage 1 needs a siglip_vision_model with vision_feature_select_strategy 'full', and this model has a "
                f"{kind} with {strategy!r}: set dominant=None to use stage 2 alone."
            )
