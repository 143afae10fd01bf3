"""How many places Qwen2.5-VL's and Qwen3-VL's images and videos have in a prompt of vLLM: what stage 1 retains of them.

That follows from the grid alone, so vLLM knows it before anything is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from vllm.model_executor.models.qwen2_vl import Qwen2VLProcessingInfo
from vllm.multimodal.processing import PromptReplacement
from vllm.multimodal.processing.processor import PromptUpdateDetails

from ..config.settings import Settings
from ..errors import DuetError
from .counted import CountedProcessor, Shortened
from .frames import Grid, kept_of, shortened
from .settings import read

POSITIONS = 4  # vLLM's table of rotary embeddings goes so many times as far as the longest prompt of a model


class CompressedInfo(Qwen2VLProcessingInfo):
    """Stock's, with the counts of stage 1: for the encoder's budget and for profiling."""

    @cached_property
    def duet(self) -> Settings:
        return read(self.get_hf_config()).config

    def _get_vision_info(self, **kwargs: Any) -> tuple[Any, int]:
        size, tokens = super()._get_vision_info(**kwargs)
        vision = self.get_hf_config().vision_config
        patches = size.height // vision.patch_size, size.width // vision.patch_size
        frame = Grid.of((1, *patches), vision.spatial_merge_size).tokens
        return size, tokens // frame * kept_of(self.duet, frame)


class CompressedProcessor(CountedProcessor):
    """Stock's, with as many placeholders as stage 1 retains."""

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        stock: Sequence[PromptReplacement]
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        if not self.info.duet.merges:
            return stock
        side = self.info.get_hf_config().vision_config.spatial_merge_size

        def shorter(update: PromptReplacement) -> PromptReplacement:
            kind, whole = update.modality, update.replacement

            def ids(number: int) -> Any:
                thw = out_mm_kwargs[kind][number][f"{kind}_grid_thw"].data.tolist()
                return self._shorter(whole(number), kind, Grid.of(thw, side))

            return replace(update, replacement=ids)

        return [shorter(update) for update in stock]

    def _shorter(self, ids: Any, kind: str, grid: Grid) -> Shortened:
        """What stands for an image or video of a prompt, after stage 1."""
        config, kept = self.info.get_hf_config(), kept_of(self.info.duet, grid.tokens)
        length, side = self.info.ctx.model_config.max_model_len, max(grid.rows, grid.columns)
        reach = POSITIONS * config.get_text_config().max_position_embeddings
        if side * length > reach * (kept + 2):  # so many such images in a prompt, with what marks them
            raise DuetError(
                f"an {kind} of {grid.rows} x {grid.columns} visual tokens has {kept} after stage 1, and many of them "
                f"would have positions beyond the {reach} that vLLM has: lower --max-model-len, which is {length}, or "
                "keep more tokens."
            )
        token = getattr(config, f"{kind}_token_id")
        whole = ids if isinstance(ids, list) else ids.full
        made = PromptUpdateDetails.select_token_id(shortened(whole, token, grid.tokens, kept), token)
        return Shortened(made.full, made.is_embed, whole.count(token))
