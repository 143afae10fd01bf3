"""A cache goes on under other settings: its layers hold other segments than those of the prompt that comes."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from exactness import close, kept
from matrix import attention, family
from oracle import masked_prefill
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig

STAGE_1: dict[str, Any] = dict(dominant=13, contextual=4, cluster_width=3)
DROPS = {
    "drops later": ([Drop(2, 0.5), Drop(4, 0.25)], [Drop(3, 0.4)]),
    "drops earlier": ([Drop(4, 0.25)], [Drop(1, 0.5), Drop(3, 0.0)]),
}


def at(kept: dict[int, Tensor], layer: int) -> Tensor:
    """(B, S) bool, what is alive in a layer."""
    return kept[max(one for one in kept if one <= layer)]


@family
@attention
@pytest.mark.parametrize("positions", ["renumber", "keep"])
@pytest.mark.parametrize("drops", DROPS)
@pytest.mark.parametrize("rows", [((5, 9),), ((5, 9), (2, 3, 6))], ids=["one", "padded"])
def test_a_second_image_under_other_settings(
    family: str, attention: str, positions: str, drops: str, rows: Any
) -> None:
    earlier, later = (DuetConfig(**STAGE_1, drops=one, positions=positions) for one in DROPS[drops])
    model, first = tiny.build(family, attention), tiny.inputs(family, rows)
    second = tiny.inputs(family, tuple((3, 6) for _ in rows), seed=4)
    with duet_vlm.apply(model, earlier, tokenizer=tiny.Words()) as handle, torch.no_grad():
        cache = model(**first, use_cache=True).past_key_values
        before = kept(handle, first)
        handle.use(later)
        full = tiny.extended(first, second["input_ids"])
        now = {k: v for k, v in second.items() if k != "attention_mask"}
        logits = model(**now, attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True).logits
        after = kept(handle, second)
        token = torch.full((len(rows), 1), 7)
        whole = tiny.extended(full, token)
        step = dict(attention_mask=whole["attention_mask"], past_key_values=cache, use_cache=True)
        logits = torch.cat([logits, model(input_ids=token, **step).logits], 1)
        everywhere = torch.ones(len(rows), 1, dtype=torch.bool)
        layers = sorted({*before, *after})
        alive = {i: torch.cat([at(before, i), at(after, i), everywhere], 1) for i in layers}
        for name in ("pixel_values", "image_sizes"):
            if name in first:
                order = [0, 3, 1, 2, 4] if len(rows) == 2 else [0, 1]  # row by row
                whole[name] = torch.cat([first[name], second[name]])[order]
        hidden, there = masked_prefill(model, whole, alive, renumber=positions == "renumber")
        there = there[:, -logits.shape[1] :]
        close(logits[there], model.lm_head(hidden)[:, -logits.shape[1] :][there])
