"""The thinker of Qwen2.5-Omni: pictures and videos as in Qwen2.5-VL; audio stays, as text does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Qwen25Omni(Qwen25VL, model_types=("qwen2_5_omni_thinker",)):
    """Audio comes beside ids, is encoded by the core model, and is neither merged nor dropped."""

    video_processor = None  # the commands prepare no sound

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """It finds pictures by the ids of their places."""
        return {"image_grid_thw": pixels["image_grid_thw"]}
