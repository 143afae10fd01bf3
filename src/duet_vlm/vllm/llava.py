"""LLaVA-1.5 in vLLM: CLIP's tower, merged before the projector, CLS first (docs/method.md, 1.7)."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.llava import (
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from ..config.budget import stage1_counts
from ..families import cls_tower
from ..families.llava import LlavaStage1
from ..stage1 import Encoded, merge
from ..tensors.streamed import Softmax, column_sums
from .counted import CountedProcessor
from .model import CompressedModel
from .settings import read

_STOCK: Any = LlavaForConditionalGeneration


class Info(LlavaProcessingInfo):
    """How many places an image has in a prompt: as many as stage 1 retains."""

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return sum(stage1_counts(read(self.get_hf_config()).config, self.whole))

    @property
    def whole(self) -> int:
        """How many visual tokens an image has before stage 1, whatever its size."""
        side = self.get_hf_config().vision_config.image_size
        tokens: int = super().get_num_image_tokens(image_width=side, image_height=side)
        return tokens


class Processor(CountedProcessor, LlavaMultiModalProcessor):
    """Stock's, with a count of what it makes."""

    def _whole(self, content: Any) -> int:
        whole: int = self.info.whole
        return whole


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=_STOCK._processor_factory.dummy_inputs)
class DuetLlava(CompressedModel, LlavaForConditionalGeneration):
    """LLaVA whose config has `duet`."""

    # transformers 5.23 saves the tower without the name that vLLM knows it by
    hf_to_vllm_mapper = (
        WeightsMapper(
            orig_to_new_regex={re.compile(r"^(model\.)?vision_tower\.(?!vision_model\.)"): "vision_tower.vision_model."}
        )
        | _STOCK.hf_to_vllm_mapper
    )

    def _image_pixels_to_features(self, vision_tower: Any, pixel_values: Tensor) -> Tensor:
        if not self.duet.merges:
            features: Tensor = super()._image_pixels_to_features(vision_tower, pixel_values)
            return features
        attention, seen = vision_tower.vision_model.encoder.layers[-1].self_attn, []
        hook = attention.attn.register_forward_pre_hook(lambda _, given: seen.append(given[:2]))
        try:
            full = vision_tower(pixel_values, feature_select_strategy="full")
        finally:
            hook.remove()
        query, key = (x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for x in seen[0])
        scores = column_sums(query[:, :, :1], key, Softmax(attention.scale))[:, 1:] * query.shape[1]
        encoded = Encoded(scores, key[:, :, 1:].float().mean(1), full[:, 1:], cls_tower.grid(self.config))
        merged = merge(self.duet, encoded, reserved=LlavaStage1.reserved)
        return torch.cat([full[:, :1], merged.retained(full[:, 1:])], dim=1)
