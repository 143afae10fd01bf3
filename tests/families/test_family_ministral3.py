"""Ministral 3: its attention scales queries by positions, those that its layers keep or those that close the gaps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError

FIRST = Drop(2, 0.5)


@pytest.mark.parametrize("positions", ["renumber", "keep"])
@torch.no_grad()
def test_behind_a_drop_queries_rank_as_the_layer_attends(positions: Any) -> None:
    """The attention of layer 3, as it works on what the drop at 2 kept, is what a drop at 3 ranks by."""
    model, batch = zoo.build("ministral3", "eager"), zoo.inputs("ministral3", ((30, "i", 9),))
    asked = DuetConfig(drops=[FIRST], positions=positions, query="all")
    with duet_vlm.apply(model, asked) as handle:
        seen = model(**batch, output_attentions=True, use_cache=False).attentions[3]
        kept = handle.trace.samples[0].drops[-1].kept
    ids = batch["input_ids"][0]
    there = (ids != zoo.IMAGE).index_fill(0, torch.tensor(kept), True).nonzero()[:, 0].tolist()
    first = int((ids == zoo.IMAGE).nonzero()[0])
    rows = [there.index(i) for i in there if i > first and ids[i] != zoo.IMAGE]
    expected = seen[0][:, rows].mean((0, 1))[[there.index(i) for i in kept]]
    with duet_vlm.apply(model, DuetConfig(drops=[FIRST, Drop(3, 0.3)], positions=positions, query="all")) as handle:
        model(**batch)
        drop = handle.trace.samples[0].drops[-1]
    assert drop.ranked == kept
    torch.testing.assert_close(torch.tensor(drop.scores), expected, atol=1e-6, rtol=1e-4)


def test_gaps_are_refused_where_flash_attention_would_misread_them() -> None:
    model, batch = zoo.build("ministral3"), zoo.inputs("ministral3", ((4, "i", 5),))
    text = model.model.language_model.config
    text._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(DuetError, match=r"positions 'keep' leave gaps, .* of a ministral3 takes for packed sequences"):
        duet_vlm.apply(model, DuetConfig(drops=[FIRST], positions="keep", query="last"))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    duet_vlm.apply(model, DuetConfig(drops=[FIRST], query="last")).remove()
    text._attn_implementation_internal = "sdpa"
    with duet_vlm.apply(model, DuetConfig(drops=[FIRST], positions="keep", query="last")), torch.no_grad():
        model(**batch)
        text._attn_implementation_internal = "flash_attention_2"
        with pytest.raises(DuetError, match="positions 'keep' leave gaps"):
            model(**batch)
        text._attn_implementation_internal = "sdpa"
