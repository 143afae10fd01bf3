"""Qwen3-VL in vLLM: as Qwen2.5-VL, with early features (deepstack) that stay with the kept places."""

from __future__ import annotations

from vllm.model_executor.models import qwen3_vl as stock
from vllm.multimodal import MULTIMODAL_REGISTRY

from .qwen import CompressedInfo, CompressedModel, CompressedProcessor


class Info(CompressedInfo, stock.Qwen3VLProcessingInfo):
    """Stock's, with the counts of stage 1."""


class Processor(CompressedProcessor, stock.Qwen3VLMultiModalProcessor):
    """Stock's, with the placeholders of stage 1."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=stock.Qwen3VLDummyInputsBuilder)
class DuetQwen3VL(CompressedModel, stock.Qwen3VLForConditionalGeneration):
    """Stock's, compressed."""
