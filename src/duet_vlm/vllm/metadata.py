"""What attention is told of each stage, made once a step where vLLM makes it: in the builders of its backend.

Every stage has a backend of its own, a subclass of the layer's whose builder is handed other counts. Nothing is read
from a tensor of the device: counts come from the copies that vLLM keeps on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionCGSupport, subclass_attention_backend

from ..config.drops import Drop
from ..errors import DuetError
from .plan import Row, Stage, stages_of
from .state import Prompt, Requests


@dataclass(eq=False)
class Step:
    """One forward pass, as far as it is known before it begins.

    Attributes:
        prompts: of its requests, in the order of their tokens.
        rows: the requests.
        stages: what each stage computes.
        places: for every stage behind a drop that was told of, (N,) where each token stands, on the device.
        slots: names of attention layers, and (N,) the slot of their KV cache that each token is stored in.
    """

    prompts: list[Prompt]
    rows: list[Row]
    stages: list[Stage]
    places: dict[int, Tensor] = field(default_factory=dict)
    slots: list[tuple[Sequence[str], Tensor]] = field(default_factory=list)

    @property
    def compressed(self) -> bool:
        """Whether any of its requests has lost a token, or will."""
        return any(any(row.removed) for row in self.rows)

    @property
    def entering(self) -> list[int]:
        """Its requests that lose tokens in this step."""
        return [number for number, row in enumerate(self.rows) if row.enters and any(row.removed)]


class Stages:
    """The stages of one model, and the step that is being prepared or run.

    Attributes:
        drops: of stage 2, in the order of layers.
        requests: what is known of requests.
        step: the last one that metadata were made for; None before the first.
        of_layers: the stage of each layer.
    """

    def __init__(self, drops: Sequence[Drop], runs: Sequence[str], attentions: Sequence[Any]):
        """Give every attention layer the backend of its stage.

        Args:
            drops: of stage 2.
            runs: as in `Family.runs`.
            attentions: the attention layers of the decoder in order, as vLLM has them (`Attention`).
        """
        self.drops = tuple(drops)
        self.requests = Requests(drops, runs)
        self.step: Step | None = None
        self._of: Any = None
        self.of_layers = [sum(drop.layer <= layer for drop in self.drops) for layer in range(len(attentions))]
        backends: dict[tuple[Any, int], Any] = {}
        for stage, attention in zip(self.of_layers, attentions, strict=True):
            key = (attention.attn_backend, stage)
            if key not in backends:
                backends[key] = _backend(attention.attn_backend, self, stage)
            attention.attn_backend = backends[key]

    def common(self, stage: int, common: Any, block_size: int, names: Sequence[str]) -> Any:
        """What vLLM tells every attention layer in a step, as it is for one stage.

        Args:
            stage: 0 before the first drop.
            common: vLLM's `CommonAttentionMetadata`, of all tokens.
            block_size: tokens of a KV block in its block table.
            names: of the attention layers that this is for: those of the stage that share a block table.
        """
        if self.step is None or self._of is not common.query_start_loc_cpu:
            self.step, self._of = self._prepared(common), common.query_start_loc_cpu
        step = self.step
        if stage == 0 or not step.compressed:
            return common
        counts = step.stages[stage]
        device = common.block_table_tensor.device
        # one copy to the device
        packed = torch.from_numpy(np.concatenate([counts.starts, counts.lengths, counts.rows, counts.places]))
        packed = packed.to(device, non_blocking=True)
        reqs = len(counts.lengths)
        starts, lengths, rows, places = packed.split([reqs + 1, reqs, counts.tokens, counts.tokens])
        blocks = common.block_table_tensor[rows, places // block_size].long()
        slots = blocks * block_size + places % block_size
        step.places[stage] = places
        step.slots.append((names, slots))
        return common.replace(
            query_start_loc=starts.to(common.query_start_loc.dtype),
            query_start_loc_cpu=torch.from_numpy(counts.starts).to(common.query_start_loc_cpu.dtype),
            seq_lens=lengths.to(common.seq_lens.dtype),
            seq_lens_cpu_upper_bound=torch.from_numpy(counts.lengths).to(common.seq_lens.dtype),
            num_actual_tokens=counts.tokens,
            max_query_len=counts.longest_query,
            max_seq_len=int(counts.lengths.max()),
            slot_mapping=slots,
            positions=places,
            _num_computed_tokens_cache=None,
            _token_to_req_indices_cache=None,
        )

    def _prepared(self, common: Any) -> Step:
        starts = common.query_start_loc_cpu.tolist()  # a copy on the host, as the next one
        lengths = common.seq_lens_cpu_upper_bound.tolist()
        prompts = self.requests.batch()
        rows = []
        for prompt, start, end, length in zip(prompts, starts, starts[1:], lengths, strict=False):
            scheduled, computed = end - start, length - (end - start)
            enters = computed < prompt.length
            if enters and any(prompt.removed) and (computed or scheduled < prompt.length):
                raise DuetError(
                    f"tokens {computed} to {length} of a prompt of {prompt.length} with images came alone, and stage 2 "
                    "ranks whole prompts: start vLLM with --no-enable-chunked-prefill --no-enable-prefix-caching."
                )
            rows.append(Row(computed, scheduled, prompt.removed, enters))
        return Step(prompts, rows, stages_of(rows, len(self.drops)))


def _backend(backend: Any, stages: Stages, stage: int) -> Any:
    """A backend that is told of one stage alone. Its name is of its own: vLLM tells backends apart by their names."""
    stock: Any = backend.get_builder_cls()

    class Builder(stock):
        _cudagraph_support = AttentionCGSupport.NEVER

        def build(self, common_prefix_len: int, common_attn_metadata: Any, *args: Any, **kwargs: Any) -> Any:
            common = stages.common(stage, common_attn_metadata, self.kv_cache_spec.block_size, self.layer_names)
            return super().build(common_prefix_len, common, *args, **kwargs)

    return subclass_attention_backend(f"Duet{stage}", backend, Builder)
