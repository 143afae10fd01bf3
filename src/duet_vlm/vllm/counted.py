"""Visual tokens of prompts, counted where vLLM makes its prompts: in the process whose `/metrics` it answers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor
from vllm.multimodal.processing.processor import PromptUpdateDetails

from ..families import family_of
from .metrics import VisualTokens
from .settings import read
from .state import average_left, dropping, spans_of


@functools.cache
def visual_tokens() -> VisualTokens:
    """The counters of this process, beside vLLM's own."""
    return VisualTokens(REGISTRY)


@dataclass
class Shortened(PromptUpdateDetails):
    """What stands for an image or video in a prompt after stage 1.

    Attributes:
        whole: how many visual tokens it has before; vLLM's caches keep this, and not the grid that tells.
    """

    whole: int = 0


class CountedProcessor(BaseMultiModalProcessor):
    """Stock's, which counts the visual tokens of every prompt that it makes, and none that only profiles memory."""

    counts = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        visual_tokens()  # they are there, at zero, from the start

    def get_dummy_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        quiet = copy.copy(self)
        quiet.counts = False
        return super(CountedProcessor, quiet).get_dummy_mm_inputs(*args, **kwargs)

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> tuple[list[int], Mapping[str, Sequence[Any]]]:
        ids, shown = super()._maybe_apply_prompt_updates(mm_items, mm_res)
        if self.counts:
            whole = [self._whole(update[0].content) for updates in mm_res.prompt_updates.values() for update in updates]
            features = [
                SimpleNamespace(modality=kind, mm_position=one.to_range()) for kind, of in shown.items() for one in of
            ]
            visual_tokens().count(sum(whole), self._kept(features, len(ids)))
        return ids, shown

    def _whole(self, content: PromptUpdateDetails) -> int:
        """How many visual tokens an image or video has before stage 1."""
        if isinstance(content, Shortened):
            return content.whole
        return len(content.full) if content.is_embed is None else int(content.is_embed(content.full).sum())

    def _kept(self, features: Sequence[Any], length: int) -> float:
        """The visual tokens of a prompt of so many tokens, on average over the decoder's layers."""
        hf_config = self.info.get_hf_config()
        drops = [drop for drop in read(hf_config).config.drops if drop.keep < 1]
        spans = spans_of(features, family_of(hf_config).runs)
        if not dropping(spans, length, drops):
            drops = []
        return average_left(spans, drops, hf_config.get_text_config().num_hidden_layers)
