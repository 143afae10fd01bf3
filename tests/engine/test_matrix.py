"""The matrix: every family, sdpa and eager, against masks, uncached and single computations."""

from __future__ import annotations

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept, per_layer, weights
from matrix import apply, attention, config, family, rows_of, stages
from oracle import masked_prefill, masked_stock
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig


@family
@attention
@config
@pytest.mark.parametrize("rows", ["one", "many"])
def test_prefill_equals_masking_oracle(family: str, attention: str, name: str, rows: str) -> None:
    model = zoo.build(family, attention)
    batch = zoo.inputs(family, rows_of(family)[:1] if rows == "one" else rows_of(family))
    handle = apply(model, family, name)
    with torch.no_grad():
        out = model(**batch)
    alive, sizes = kept(handle, batch), weights(handle, batch, family)
    hidden, there = masked_stock(model, batch, alive, handle.renumbers, sizes)
    close(out.logits[there], model.lm_head(hidden)[there].detach())
    if family in tiny.FAMILIES:
        # layer by layer, where a layer is called as simply as in LLaVA
        again, same = masked_prefill(model, batch, alive, handle.renumbers, sizes)
        assert torch.equal(there, same)
        close(out.logits[there], model.lm_head(again)[there].detach())
    # a linear layer holds a state, and one that borrows keys nothing
    stored = {i: getattr(layer, "keys", None) for i, layer in enumerate(out.past_key_values.layers)}
    lengths = {i: keys.shape[-2] for i, keys in stored.items() if keys is not None}
    last = alive[max(layer for layer in alive if layer <= max(lengths))]
    assert lengths[max(lengths)] == max(last.sum(1)) < batch["input_ids"].shape[1]


@family
@attention
@config
def test_cached_decode_equals_uncached_recompute(family: str, attention: str, name: str) -> None:
    model, batch = zoo.build(family, attention), zoo.inputs(family, rows_of(family))
    handle = apply(model, family, name)
    out = generate(model, batch)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:-1]
    alive = kept(handle, batch, more=new.shape[1])
    sizes = weights(handle, batch, family, more=new.shape[1])
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new), alive, handle.renumbers, sizes)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


@family
@attention
@pytest.mark.parametrize("name", ["both stages", "proportional", "stage 2 alone"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padded_batch_equals_one_by_one(family: str, attention: str, name: str, padding: str) -> None:
    model, rows = zoo.build(family, attention), rows_of(family)
    batch = zoo.inputs(family, rows, padding)
    apply(model, family, name)
    singles = [zoo.inputs(family, (row,), first=i) for i, row in enumerate(rows)]
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        for row, single in enumerate(singles):
            alone = model(**single, use_cache=False).logits[0]
            close(together[row, batch["attention_mask"][row].bool()], alone)
    if padding == "left":
        steps = torch.stack(generate(model, batch).logits, 1)
        for row, single in enumerate(singles):
            close(steps[row], torch.stack(generate(model, single).logits, 1)[0])


@family
@attention
def test_rows_without_padding_may_keep_different_numbers(family: str, attention: str) -> None:
    model = zoo.build(family, attention)
    draw = 3  # in which the two images of a row have more tokens than the one beside them
    two: zoo.Rows = ((5, "i", 4, "i", 5),)
    lengths = [
        zoo.inputs(family, row, seed=draw, first=i)["input_ids"].shape[1] for i, row in enumerate((((5, "i"),), two))
    ]
    rows: zoo.Rows = ((5, "i", lengths[1] - lengths[0]), *two)
    batch = zoo.inputs(family, rows, seed=draw)
    singles = [zoo.inputs(family, (row,), seed=draw, first=i) for i, row in enumerate(rows)]
    assert batch["attention_mask"].all()
    handle = apply(model, family)
    for mask in (batch["attention_mask"], None):
        together = torch.stack(generate(model, {**batch, "attention_mask": mask}).logits, 1)
        one, other = (counts[0] for counts in per_layer(handle))
        assert one < other
        for row, single in enumerate(singles):
            close(together[row], torch.stack(generate(model, single).logits, 1)[0])


@family
@attention
@stages
def test_beam_search_scores_equal_uncached_recompute(family: str, attention: str, name: str) -> None:
    model = zoo.build(family, attention)
    batch = zoo.inputs(family, rows_of(family)[:2])
    if not zoo.FAMILIES[family].repeats:
        with pytest.raises(ValueError, match=r"expected a non-empty list|tokens do not match"):
            generate(model, batch, 4, num_beams=3)
        return
    handle = apply(model, family, name)
    out = generate(model, batch, 4, num_beams=3, output_scores=True)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:]
    model(**batch)
    alive = kept(handle, batch, more=new.shape[1] - 1)
    sizes = weights(handle, batch, family, more=new.shape[1] - 1)
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new[:, :-1]), alive, handle.renumbers, sizes)
    chances = model.lm_head(hidden)[:, length - 1 :].log_softmax(-1)
    close(chances.gather(2, new[..., None])[..., 0].sum(1).detach() / new.shape[1], out.sequences_scores)


@family
@attention
def test_several_tokens_at_once_and_crop(family: str, attention: str) -> None:
    model, batch = zoo.build(family, attention), zoo.inputs(family, rows_of(family)[:1])
    handle = apply(model, family)
    full = zoo.extended(family, batch, torch.tensor([[7, 11, 5, 23]]))

    def step(last: int) -> Tensor:
        ids = full["input_ids"][:, -last:]
        more = dict(attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True)
        if zoo.FAMILIES[family].mrope:
            more["position_ids"] = zoo.rope_index(model, full)[..., -last:]  # stock leaves them to the caller
        logits: Tensor = model(input_ids=ids, **more).logits
        return logits

    with torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        alive = kept(handle, batch, more=4)
        together = step(4)
        hidden, _ = masked_stock(model, full, alive, handle.renumbers)
        expected = model.lm_head(hidden)[:, -4:]
        close(together, expected)
        if zoo.is_hybrid(model):
            with pytest.raises(RuntimeError, match="crop"):  # nothing takes a token out of a state again, stock neither
                cache.crop(-2)
            return
        cache.crop(-2)
        close(step(2), expected[:, 2:])
        seen = zoo.media(batch)[0].nonzero()[:, 0]
        into_the_image = full["input_ids"].shape[1] - int(seen[len(seen) // 2])
        with pytest.raises(ValueError, match="cannot give back"):
            cache.crop(-into_the_image)


@family
@attention
def test_nothing_to_do_is_bit_identical(family: str, attention: str) -> None:
    model, batch = zoo.build(family, attention), zoo.inputs(family, rows_of(family))
    text = zoo.inputs(family, ((11,), (8,)))
    real, real_text = batch["attention_mask"].bool(), text["attention_mask"].bool()
    with torch.no_grad():
        stock, stock_text = model(**batch).logits, model(**text).logits
        stock_new, stock_text_new = generate(model, batch), generate(model, text)
        for config in (DuetConfig(), DuetConfig(drops=[Drop(2, 1.0)])):
            with duet_vlm.apply(model, config):
                assert torch.equal(model(**batch).logits[real], stock[real])
                assert torch.equal(generate(model, batch).sequences, stock_new.sequences)
        with apply(model, family) as handle:
            assert torch.equal(model(**text).logits[real_text], stock_text[real_text])
            assert torch.equal(torch.stack(generate(model, text).logits), torch.stack(stock_text_new.logits))
            assert not torch.equal(model(**batch).logits[real], stock[real])
        handle.remove()
        assert torch.equal(model(**batch).logits[real], stock[real])
        assert torch.equal(torch.stack(generate(model, batch).logits), torch.stack(stock_new.logits))
    assert not hasattr(model.config, "duet")
    hooks = [h for m in model.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    assert not any("duet_vlm" in type(getattr(hook, "__self__", None)).__module__ for hook in hooks)


@family
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_tower_and_projector(family: str, checkpointing: bool) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    apply(model, family)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-3] = -100
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model(**batch, labels=labels).loss.backward()
    touched = [name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())]
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    towers = [name for name in touched if any(part in name for part in ("visual", "vision", "tower"))]
    assert len(towers) > 5
    assert any("layers.4" in name for name in touched)
