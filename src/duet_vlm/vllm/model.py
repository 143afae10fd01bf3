"""What the model classes share: their stage 2, made from a config of vLLM."""

from __future__ import annotations

from typing import Any

from ..families import family_of
from .decoder import Decoder
from .settings import Served


def decoder_of(served: Served, model: Any, vllm_config: Any) -> Decoder | None:
    """Stage 2 of a model that is being made; None where it is off.

    Args:
        served: the settings.
        model: its decoder.
        vllm_config: vLLM's.
    """
    config = served.config
    drops = [drop for drop in config.drops if drop.keep < 1]
    if not drops:
        return None
    if served.kv_groups:
        from .kv import group_by_stage

        group_by_stage([layer.self_attn.attn for layer in model.layers], drops)
    model_config = vllm_config.model_config
    family = family_of(model_config.hf_config)
    tokenizer = None
    if config.ranks and config.query == "salient":
        from vllm.tokenizers import cached_tokenizer_from_config

        tokenizer = cached_tokenizer_from_config(model_config)
    positions = family.positions if config.positions == "auto" else config.positions
    return Decoder(config, model, runs=family.runs, renumbers=positions == "renumber", tokenizer=tokenizer)
