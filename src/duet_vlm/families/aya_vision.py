"""Aya Vision and Command A Vision: tiles, merged behind a projector that shuffles pixels; received attention scores.

Layers with a window have rotary embeddings and the others have none, so positions can be renumbered; a window is
measured in positions of the whole prompt, as the stock masks say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from . import fixed
from .encoding import EncoderCall

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class AyaVisionStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the tile; zeros elsewhere."""

    def merge_images(self, call: EncoderCall, tokens: Tensor) -> None:
        """The projector gives rows and columns."""
        super().merge_images(call, tokens.flatten(1, 2))

    def pool(self, x: Tensor) -> Tensor:
        return fixed.mean_of_groups(self.projector.pixel_shuffle(x).flatten(1, 2), x.shape[2])


class AyaVision(fixed.Fixed, model_types=("aya_vision", "cohere2_vision")):
    """Text stands between the tiles of an image, so that stage 2 ranks each by itself."""

    runs = ("image",)
    tiled = tiles_apart = True
    # their processors ask for the tiles, whatever the file of an image processor says
    layout_options: ClassVar[dict[str, Any]] = {"crop_to_patches": True}
    stage1 = AyaVisionStage1

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        side = config.vision_config.image_size // config.vision_config.patch_size
        return int(side // config.downsample_factor) ** 2
