"""DUET-VLM in vLLM: a plug-in that vLLM loads by itself, for models whose config has `duet` (docs/serving.md).

Where a model has no such settings, nothing of this is used: vLLM's own class serves it. Only `register` runs then, and
it puts names into two tables of vLLM. No class of vLLM is patched.
"""

from __future__ import annotations

from typing import Any

PREFIX = "Duet"
# architecture -> the class that serves it where a model has settings
SERVED = {
    "LlavaForConditionalGeneration": "duet_vlm.vllm.llava:DuetLlava",
    "Qwen2_5_VLForConditionalGeneration": "duet_vlm.vllm.qwen2_5_vl:DuetQwen25VL",
    "Qwen3VLForConditionalGeneration": "duet_vlm.vllm.qwen3_vl:DuetQwen3VL",
}
# architectures that `duet_vlm.apply` compresses and this plug-in does not: refused, or settings would go unnoticed
REFUSED = (
    "Gemma3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
    "VoxtralForConditionalGeneration",
)


def register() -> None:
    """What vLLM calls in every process of an engine (the entry point `vllm.general_plugins`); calling again is free."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for architecture, served in SERVED.items():
        ModelRegistry.register_model(PREFIX + architecture, served)
    for architecture in (*SERVED, *REFUSED):
        stock: Any = MODELS_CONFIG_MAP.get(architecture)
        if not isinstance(stock, ConfigHook):
            hook: Any = ConfigHook(architecture, stock)
            MODELS_CONFIG_MAP[architecture] = hook


class ConfigHook:
    """What vLLM lets a model's row say about its config: stock's own rule first, then ours where there are settings.

    Attributes:
        architecture: of the model.
        stock: vLLM's own row for it, or None.
    """

    def __init__(self, architecture: str, stock: Any):
        self.architecture = architecture
        self.stock = stock

    def verify_and_update_model_config(self, model_config: Any) -> None:
        """The end of a `ModelConfig`'s making: read the settings, and name the class that serves them."""
        if self.stock is not None:
            self.stock.verify_and_update_model_config(model_config)
        if getattr(model_config.hf_config, "duet", None):
            from .settings import choose

            choose(model_config, self.architecture)

    def verify_and_update_config(self, vllm_config: Any) -> None:
        """The start of a `VllmConfig`'s making: switch off what cannot be, refuse what was asked for and cannot be."""
        if self.stock is not None:
            self.stock.verify_and_update_config(vllm_config)
        if getattr(vllm_config.model_config.hf_config, "duet", None):
            from .refusals import prepare

            prepare(vllm_config)
