"""InternVL: tiles, each merged behind the projector; the attention of InternViT's CLS token is the score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from . import cls_tower, fixed
from .encoding import EncoderCall
from .features import feature_layer
from .video.processors import BICUBIC, CLIP_MEAN, CLIP_STD, FrameProcessor
from .video.sampling import Sampling, middles

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class InternVLStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the tile; zeros elsewhere. CLS takes none."""

    @property
    def attention(self) -> Any:
        return feature_layer(self.core.config, self.tower.encoder.layer).attention

    def score(self, call: EncoderCall, image: int) -> tuple[Tensor, Tensor]:
        return cls_tower.cls_attention(self.attention, call.hidden[image : image + 1])

    def pool(self, x: Tensor) -> Tensor:
        side, ratio = int(x.shape[1] ** 0.5), self.core.config.downsample_ratio
        shuffled = self.core.pixel_shuffle(x.unflatten(1, (side, side)), scale_factor=ratio)
        return fixed.mean_of_groups(shuffled.flatten(1, 2), x.shape[2])


class InternVLVideoProcessor(FrameProcessor):
    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=CLIP_MEAN, image_std=CLIP_STD, size={"height": 384, "width": 384}
    )
    sampling = Sampling(middles, count=8)


class InternVL(fixed.Fixed, model_types=("internvl",)):
    """Spans of stage 2 are runs: the tiles of an image stand in one, a video's frames have text between them."""

    runs = ("image",)
    tiled = True
    # its processor of texts and images asks for the tiles, whatever its image processor's own file says
    layout_options: ClassVar[dict[str, Any]] = {"crop_to_patches": True}
    stage1 = InternVLStage1
    video_processor = InternVLVideoProcessor

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        vision = config.vision_config
        rows, columns = (
            int(size // patch * config.downsample_ratio)
            for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows * columns
