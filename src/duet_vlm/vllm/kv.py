"""KV blocks of their own for every stage: layers behind a drop hold only what is left (`"kv_groups": true`).

vLLM gives each KV cache group of layers a block table of its own. Here a stage is a group, and its manager counts the
tokens that are left. The scheduler tells the managers how many are gone, as they are told nothing but names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry, register_kv_cache_spec

from ..config.drops import Drop
from ..families import family_of
from .settings import read
from .state import dropping, removed_of, spans_of

KVCacheSpecRegistry._ensure_registered()  # vLLM's own first: it registers them only while there are none


class StageManager(FullAttentionManager):
    """Gives each request blocks for the tokens that are left of it in a stage.

    Attributes:
        gone: (request id, stage) -> how many visual tokens of it are gone; set by the scheduler.
    """

    gone: Callable[[str, int], int]

    def get_num_blocks_to_allocate(self, request_id: str, num_tokens: int, *args: Any, **kwargs: Any) -> int:
        left = self._left(request_id, num_tokens)
        blocks: int = super().get_num_blocks_to_allocate(request_id, left, *args, **kwargs)
        return blocks

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> Any:
        left = (self._left(request_id, tokens) for tokens in (num_tokens, num_tokens_main_model))
        return super().allocate_new_blocks(request_id, *left)

    def _left(self, request_id: str, tokens: int) -> int:
        return max(1, tokens - self.gone(request_id, self.kv_cache_spec.stage))


@register_kv_cache_spec(manager_class=StageManager)
@dataclass(frozen=True, kw_only=True)
class StageSpec(FullAttentionSpec):
    """What a layer of one stage needs of the cache; those of another stage are no group with it.

    Attributes:
        stage: 0 before the first drop.
    """

    stage: int = 0

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, Any]) -> bool:
        return all(spec == self for spec in kv_cache_specs.values())

    @classmethod
    def merge(cls, specs: list[Any]) -> Any:
        # vLLM takes this kind of error as the answer "no"
        assert all(spec == specs[0] for spec in specs), "layers of different stages have tables of their own"
        return specs[0]


def group_by_stage(attentions: Sequence[Any], drops: Sequence[Drop]) -> None:
    """Have each attention layer of a decoder ask for the cache of its stage."""
    for layer, attention in enumerate(attentions):
        stage = sum(drop.layer <= layer for drop in drops)
        attention.get_kv_cache_spec = partial(_spec, attention.get_kv_cache_spec, stage)


def _spec(stock: Callable[[Any], Any], stage: int, vllm_config: Any) -> StageSpec:
    spec = stock(vllm_config)
    return StageSpec(**{one.name: getattr(spec, one.name) for one in dataclasses.fields(spec)}, stage=stage)


class StageScheduler(Scheduler):
    """vLLM's scheduler, whose KV managers can ask how many visual tokens of a request are gone."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        hf_config = self.vllm_config.model_config.hf_config
        self._drops = [drop for drop in read(hf_config).config.drops if drop.keep < 1]
        self._runs = family_of(hf_config).runs
        self._removed: WeakKeyDictionary[Any, tuple[int, ...]] = WeakKeyDictionary()
        for manager in self.kv_cache_manager.coordinator.single_type_managers:
            manager.gone = self._gone

    def _gone(self, request_id: str, stage: int) -> int:
        request = self.requests.get(request_id)
        if not stage or request is None:
            return 0
        if request not in self._removed:
            spans = dropping(spans_of(request.mm_features, self._runs), request.num_prompt_tokens, self._drops)
            self._removed[request] = removed_of(spans, self._drops)
        return self._removed[request][stage - 1]
