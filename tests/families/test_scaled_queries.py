"""Attention that scales queries by positions: those that layers are told (Ministral 3), or that it counts (Llama 4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
import zoo_llama4
from exactness import close, generate, kept
from gathered import gathered_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError

FIRST = Drop(1, 0.5)  # layer 2 of Llama 4 has no rotary embeddings


@pytest.fixture(autouse=True)
def steep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 4 scales in steps of four tokens, and sees the whole prompt in every layer."""
    member = zoo.Member(
        lambda: zoo_llama4.llama4(floor_scale=4, attn_scale=1.0, attention_chunk_size=None), zoo_llama4.image
    )
    monkeypatch.setitem(zoo.FAMILIES, "llama4", member)


@pytest.mark.parametrize("family", ["ministral3", "llama4"])
@pytest.mark.parametrize("positions", ["renumber", "keep"])
@torch.no_grad()
def test_behind_a_drop_queries_rank_as_the_layer_attends(family: str, positions: Any) -> None:
    """The attention of layer 2, as it works on what the drop at 1 kept, is what a drop at 2 ranks by."""
    model, batch = zoo.build(family, "eager"), zoo.inputs(family, ((30, "i", 9),))
    asked = DuetConfig(drops=[FIRST], positions=positions, query="all")
    with duet_vlm.apply(model, asked) as handle:
        seen = model(**batch, output_attentions=True, use_cache=False).attentions[2]
        left = handle.trace.samples[0].drops[-1].kept
    ids = batch["input_ids"][0]
    there = (ids != zoo.IMAGE).index_fill(0, torch.tensor(left), True).nonzero()[:, 0].tolist()
    first = int((ids == zoo.IMAGE).nonzero()[0])
    rows = [there.index(i) for i in there if i > first and ids[i] != zoo.IMAGE]
    expected = seen[0][:, rows].mean((0, 1))[[there.index(i) for i in left]]
    with duet_vlm.apply(model, DuetConfig(drops=[FIRST, Drop(2, 0.3)], positions=positions, query="all")) as handle:
        model(**batch)
        drop = handle.trace.samples[0].drops[-1]
    assert drop.ranked == left
    torch.testing.assert_close(torch.tensor(drop.scores), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", ["ministral3", "llama4"])
@torch.no_grad()
def test_an_answer_goes_on_as_if_what_is_gone_had_never_been_there(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ((30, "i", 9),))
    with duet_vlm.apply(model, DuetConfig(drops=[FIRST, Drop(3, 0.3)], query="last")) as handle:
        out = generate(model, batch)
        new = out.sequences[:, batch["input_ids"].shape[1] : -1]
        full = zoo.extended(family, batch, new)
        hidden, _ = gathered_stock(model, full, kept(handle, batch, more=4), renumber=True)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, -5:])


@pytest.mark.parametrize("family", ["ministral3", "llama4"])
@torch.no_grad()
def test_a_later_turn_ranks_and_answers_as_one_prompt(family: str) -> None:
    """Words first, then the picture: with what the words left in a cache, or all at once."""
    model, batch = zoo.build(family), zoo.inputs(family, ((30, "i", 9),))
    with duet_vlm.apply(model, DuetConfig(drops=[FIRST, Drop(2, 0.3)], query="last")) as handle:
        whole = model(**batch, logits_to_keep=1).logits
        drops = [(drop.kept, drop.scores) for drop in handle.trace.samples[0].drops]
        words = {k: v[:, :20] for k, v in batch.items() if v.ndim == 2 and k != "image_sizes"}
        cache = model(**words, use_cache=True).past_key_values
        later = {k: v if k in ("attention_mask", "image_sizes") or v.ndim > 2 else v[:, 20:] for k, v in batch.items()}
        again = model(**later, past_key_values=cache, logits_to_keep=1).logits
        for (places, scores), drop in zip(drops, handle.trace.samples[0].drops, strict=True):
            assert [place - 20 for place in places] == drop.kept
            close(torch.tensor(scores), torch.tensor(drop.scores))
    close(again, whole)


def test_gaps_are_refused_where_flash_attention_would_misread_them() -> None:
    model, batch = zoo.build("ministral3"), zoo.inputs("ministral3", ((4, "i", 5),))
    text = model.model.language_model.config
    keep = DuetConfig(drops=[FIRST], positions="keep", query="last")
    text._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(DuetError, match=r"positions 'keep' leave gaps, .* of a ministral3 takes for packed sequences"):
        duet_vlm.apply(model, keep)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    duet_vlm.apply(model, DuetConfig(drops=[FIRST], query="last")).remove()
    text._attn_implementation_internal = "sdpa"
    with duet_vlm.apply(model, keep), torch.no_grad():
        model(**batch)
        text._attn_implementation_internal = "flash_attention_2"
        with pytest.raises(DuetError, match="positions 'keep' leave gaps"):
            model(**batch)
        text._attn_implementation_internal = "sdpa"
