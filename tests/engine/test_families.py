"""The matrix: every family, sdpa and eager, against the stock model, the masking oracle, recompute and singles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
import zoo
from oracle import masked_stock, token_sizes
from test_engine import close
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "both stages": dict(cluster_width=3, drops=[Drop(2, 0.5), Drop(4, 0.25)]),
    "stage 1 alone": dict(merging="visionzip"),
    "proportional": dict(cluster_width=3, drops=[Drop(2, 0.5), Drop(4, 0.25)], proportional=True),
    "stage 2 alone": dict(drops=[Drop(1, 0.6, rank_at=0), Drop(3, 0.0)], query="last"),
}
ROWS: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6), (12,))
VIDEO_ROWS: zoo.Rows = ((5, "v", 6), (2, "i", 3, "v", 6), (7, "i", 4))

family = pytest.mark.parametrize("family", zoo.FAMILIES)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
config = pytest.mark.parametrize("name", CONFIGS)
stages = pytest.mark.parametrize("name", ["both stages", "proportional"])


def settings(family: str, name: str = "both stages") -> DuetConfig:
    dominant, contextual = zoo.FAMILIES[family].stage_1
    if name == "stage 2 alone":
        return DuetConfig(**CONFIGS[name])
    return DuetConfig(**{"dominant": dominant, "contextual": contextual, **CONFIGS[name]})


def apply(model: Any, family: str, name: str = "both stages") -> duet_vlm.Duet:
    return duet_vlm.apply(model, settings(family, name), tokenizer=tiny.Words())


def rows_of(family: str) -> zoo.Rows:
    return VIDEO_ROWS if zoo.has_video(family) else ROWS


def kept(handle: duet_vlm.Duet, batch: dict[str, Any], more: int = 0) -> dict[int, Tensor]:
    """drop layer -> (B, S + more) bool, what the trace says is alive from there on."""
    trace, out = handle.trace, {}
    assert trace is not None
    for layer in [d.layer for d in trace.samples[0].drops]:
        alive = batch["attention_mask"].bool() & ~zoo.visual(batch)
        for row, sample in enumerate(trace.samples):
            alive[row, next(d for d in sample.drops if d.layer == layer).kept] = True
        out[layer] = torch.cat([alive, torch.ones(len(alive), more, dtype=torch.bool)], 1)
    return out


def weights(handle: duet_vlm.Duet, batch: dict[str, Any], family: str, more: int = 0) -> Tensor | None:
    """(B, S + more) how often each key counts, where that is not once."""
    return token_sizes(handle.trace, batch, family, more) if handle.config.proportional else None


def generate(model: Any, batch: dict[str, Any], new: int = 5, **options: Any) -> Any:
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True} | options
    suppressed = [zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END]
    return model.generate(**batch, max_new_tokens=new, suppress_tokens=suppressed, **options)


def renumbers(model: Any, handle: duet_vlm.Duet) -> bool:
    return handle.renumbers


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
    alive = kept(handle, batch)
    hidden, there = masked_stock(model, batch, alive, renumbers(model, handle), weights(handle, batch, family))
    close(out.logits[there], model.lm_head(hidden)[there].detach())
    lengths = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert lengths[-1] == max(there.sum(1)) < batch["input_ids"].shape[1]


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
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new), alive, renumbers(model, handle), sizes)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


@family
@attention
@stages
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
@stages
def test_beam_search_scores_equal_uncached_recompute(family: str, attention: str, name: str) -> None:
    model = zoo.build(family, attention)
    batch = zoo.inputs(family, rows_of(family)[:2])
    handle = apply(model, family, name)
    out = generate(model, batch, 4, num_beams=3, output_scores=True)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:]
    model(**batch)
    alive = kept(handle, batch, more=new.shape[1] - 1)
    sizes = weights(handle, batch, family, more=new.shape[1] - 1)
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new[:, :-1]), alive, renumbers(model, handle), sizes)
    chances = model.lm_head(hidden)[:, length - 1 :].log_softmax(-1)
    close(chances.gather(2, new[..., None])[..., 0].sum(1).detach() / new.shape[1], out.sequences_scores)


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


@family
def test_deep_copy_stands_alone(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    apply(model, family)
    clone, other = copy.deepcopy(model), zoo.build(family, seed=9)
    clone.load_state_dict(other.state_dict())
    with torch.no_grad():
        before = model(**batch).logits
        with apply(other, family):
            assert torch.equal(clone(**batch).logits, other(**batch).logits)
        assert torch.equal(model(**batch).logits, before)


@family
def test_saved_and_read_again(family: str, tmp_path: Any) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    handle = apply(model, family)
    with torch.no_grad():
        expected = model(**batch).logits
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert duet_vlm.apply(again, tokenizer=tiny.Words()).config == handle.config
        close(again(**batch).logits, expected)
