"""What the model classes share: settings, stage 2 made from a config of vLLM, and a forward that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models.interfaces import SupportsMultiModal

from ..families import family_of
from .decoder import Decoder
from .settings import Served, read


class CompressedModel(SupportsMultiModal):
    """Stock's with settings: a model whose `config` has `duet`, and whose decoder is `language_model.model`.

    Attributes:
        duet: the settings.
        duet_decoder: stage 2; None where it is off.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        served = read(self.config)
        self.duet = served.config
        self._reach()
        self.duet_decoder = decoder_of(served, self.language_model.model, vllm_config)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Stage 2 where it has anything to do in this step, else stock's."""
        positions = self._placed(positions)
        if self.duet_decoder is not None:
            hidden = self.duet_decoder.forward(input_ids, positions, inputs_embeds, self._adds(positions.shape[-1]))
            if hidden is not None:
                return hidden
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)

    def _reach(self) -> None:
        """Make the decoder's layers ready for the positions of what stage 1 keeps."""

    def _placed(self, positions: Tensor) -> Tensor:
        """Positions, shaped as they are, with what stage 1 knows of the places of visual tokens."""
        return positions

    def _adds(self, count: int) -> Sequence[Tensor]:
        """(count, D) each, what is added to the hidden states after the first layers."""
        return ()


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
    return Decoder(
        config,
        model,
        runs=family.runs,
        renumbers=positions == "renumber",
        longest=vllm_config.scheduler_config.max_num_batched_tokens,
        axes=family.position_axes,
        tokenizer=tokenizer,
    )
