"""Qwen2.5-VL in vLLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from vllm.model_executor.models import qwen2_5_vl as stock
from vllm.multimodal import MULTIMODAL_REGISTRY

from .qwen import CompressedQwen
from .qwen_prompts import CompressedInfo, CompressedProcessor


class Info(CompressedInfo, stock.Qwen2_5_VLProcessingInfo):
    """Stock's, with the counts of stage 1."""


class Processor(CompressedProcessor, stock.Qwen2_5_VLMultiModalProcessor):
    """Stock's, with the placeholders of stage 1."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=stock.Qwen2_5_VLDummyInputsBuilder)
class DuetQwen25VL(CompressedQwen, stock.Qwen2_5_VLForConditionalGeneration):
    """Stock's, compressed; its tower works on windows, so what it attends to is put back in raster order."""

    def _raster(self, thw: Sequence[int]) -> Tensor | None:
        return torch.argsort(self.visual.get_rope_by_thw(*thw)[2])
