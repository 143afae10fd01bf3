"""Qwen3-VL in vLLM: as Qwen2.5-VL, with early features (deepstack) that stay with the places that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.models import qwen3_vl as stock
from vllm.multimodal import MULTIMODAL_REGISTRY

from .qwen import CompressedQwen
from .qwen_prompts import POSITIONS, CompressedInfo, CompressedProcessor


class Info(CompressedInfo, stock.Qwen3VLProcessingInfo):
    """Stock's, with the counts of stage 1."""


class Processor(CompressedProcessor, stock.Qwen3VLMultiModalProcessor):
    """Stock's, with the placeholders of stage 1."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=stock.Qwen3VLDummyInputsBuilder)
class DuetQwen3VL(CompressedQwen, stock.Qwen3VLForConditionalGeneration):
    """Qwen3-VL whose config has `duet`."""

    def _reach(self) -> None:
        if not self.duet.merges:
            return
        # positions of kept tokens go beyond how many there are; stock's table goes only that far
        text = self.config.text_config
        for layer in self.language_model.model.layers:
            layer.self_attn.rotary_emb = get_rope(
                layer.self_attn.head_dim,
                max_position=text.max_position_embeddings,
                rope_parameters=text.rope_parameters,
                mrope_positions_factor=POSITIONS,
            )

    def forward(self, input_ids: Any, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden = super().forward(input_ids, positions, *args, **kwargs)
        self._clear_deepstack_input_embeds(positions.shape[1])  # stock does it where its own forward runs
        return hidden

    def _adds(self, count: int) -> Sequence[Tensor]:
        if not getattr(self, "deepstack_input_embeds_num_tokens", 0):  # text alone, or a model without its tower
            return ()
        return [level[:count] for level in self.deepstack_input_embeds]
