"""The thinker of Qwen3-Omni: pictures and videos as in Qwen3-VL, deepstack among them; sound is text, for now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .qwen3_vl import Qwen3VL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Qwen3OmniMoe(Qwen3VL, model_types=("qwen3_omni_moe_thinker",)):
    """Sound comes beside ids, is encoded by the core model, and is neither merged nor dropped."""

    video_processor = None  # the commands prepare no sound
    pruning = None
    projectors = ("merger", "merger_list")

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """It finds pictures by the ids of their places."""
        return {"image_grid_thw": pixels["image_grid_thw"]}
