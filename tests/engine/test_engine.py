"""Exactness on tiny random models: every family, sdpa and eager, against oracles that share no code with the engine."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import tiny
import torch
from oracle import masked_prefill
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig

FAMILIES = ("llava", "llava_mistral", "llava_next")
TOLERANCE = 2e-5  # float32: a gathered sum adds in another order than a masked one
BOTH = dict(dominant=13, contextual=4, cluster_width=3, drops=[Drop(2, 0.5), Drop(4, 0.25)])
CONFIGS = {
    "both stages, salient": BOTH,
    "both stages, keep positions": {**BOTH, "positions": "keep", "query": "all"},
    "stage 1 alone": dict(dominant=9, contextual=3, merging="visionzip"),
    "stage 2 alone, last": dict(drops=[Drop(1, 0.6), Drop(3, 0.3)], query="last"),
    "fastv": dict(drops=[Drop(2, 0.4, rank_at=1)], query="last"),
    "all gone late": {**BOTH, "drops": [Drop(2, 0.5), Drop(3, 0.0)]},
}
BATCHES = {
    "one": ((5, 9),),
    "padded, two images, text alone": ((5, 9), (2, 3, 6), (12,)),
}

family = pytest.mark.parametrize("family", FAMILIES)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
config = pytest.mark.parametrize("name", CONFIGS)
rows = pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)


def apply(model: Any, name: str = "both stages, salient") -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(**CONFIGS[name]), tokenizer=tiny.Words())


def kept(handle: duet_vlm.Duet, batch: dict[str, Any], more: int = 0) -> dict[int, Tensor]:
    """drop layer -> (B, S + more) bool, what the trace says is alive from there on."""
    assert handle.trace is not None
    out = {}
    for layer in [d.layer for d in handle.trace.samples[0].drops]:
        alive = batch["attention_mask"].bool() & (batch["input_ids"] != tiny.IMAGE)
        for row, sample in enumerate(handle.trace.samples):
            drop = next(d for d in sample.drops if d.layer == layer)
            alive[row, drop.kept] = True
        out[layer] = torch.cat([alive, torch.ones(len(alive), more, dtype=torch.bool)], 1)
    return out


def extend(batch: dict[str, Any], tokens: Tensor) -> dict[str, Any]:
    ids = torch.cat([batch["input_ids"], tokens], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
    return {**batch, "input_ids": ids, "attention_mask": mask}


def generate(model: Any, batch: dict[str, Any], new: int = 6, **options: Any) -> Any:
    options |= dict(do_sample=False, return_dict_in_generate=True, output_logits=True, suppress_tokens=[tiny.IMAGE])
    return model.generate(**batch, max_new_tokens=new, **options)


def close(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@family
@attention
@config
@rows
def test_prefill_equals_masking_oracle(family: str, attention: str, name: str, rows: Any) -> None:
    model, batch = tiny.build(family, attention), tiny.inputs(family, rows)
    handle = apply(model, name)
    with torch.no_grad():
        out = model(**batch)
    alive = kept(handle, batch)
    hidden, there = masked_prefill(model, batch, alive, renumber=handle.config.positions == "auto")
    close(out.logits[there], model.lm_head(hidden)[there].detach())
    lengths = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert lengths[-1] == max(there.sum(1)) < batch["input_ids"].shape[1]


@family
@attention
@config
@rows
def test_cached_decode_equals_uncached_recompute(family: str, attention: str, name: str, rows: Any) -> None:
    model, batch = tiny.build(family, attention), tiny.inputs(family, rows)
    handle = apply(model, name)
    out = generate(model, batch)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:-1]
    alive = kept(handle, batch, more=new.shape[1])
    full = extend(batch, new)
    # stock generate numbers the tokens of a padded row from its first real one
    full["position_ids"] = (full["attention_mask"].cumsum(1) - 1).clamp(min=0)
    hidden, _ = masked_prefill(model, full, alive, renumber=handle.config.positions == "auto")
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


@family
@attention
@config
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padded_batch_equals_one_by_one(family: str, attention: str, name: str, padding: str) -> None:
    model = tiny.build(family, attention)
    batch = tiny.inputs(family, BATCHES["padded, two images, text alone"], padding)
    apply(model, name)
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        for row in range(3):
            alone = model(**tiny.single(batch, row), use_cache=False).logits[0]
            close(together[row, batch["attention_mask"][row].bool()], alone)
    if padding == "left":
        together = torch.stack(generate(model, batch).logits, 1)
        for row in range(3):
            close(together[row], torch.stack(generate(model, tiny.single(batch, row)).logits, 1)[0])


@family
@attention
def test_rows_without_padding_may_keep_different_numbers(family: str, attention: str) -> None:
    model, image = tiny.build(family, attention), tiny.image_tokens(family)
    batch = tiny.inputs(family, ((5, 9 + image), (5, 4, 5)))
    assert batch["attention_mask"].all()
    apply(model)
    for mask in (batch["attention_mask"], None):
        together = torch.stack(generate(model, {**batch, "attention_mask": mask}).logits, 1)
        for row in range(2):
            close(together[row], torch.stack(generate(model, tiny.single(batch, row)).logits, 1)[0])


@family
@attention
def test_beam_search_scores_equal_uncached_recompute(family: str, attention: str) -> None:
    model, batch = tiny.build(family, attention), tiny.inputs(family, ((5, 9), (2, 6)))
    handle = apply(model)
    out = generate(model, batch, 5, num_beams=3, output_scores=True)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:]
    model(**batch)
    alive = kept(handle, batch, more=new.shape[1] - 1)
    full = extend(batch, new[:, :-1])
    full["position_ids"] = (full["attention_mask"].cumsum(1) - 1).clamp(min=0)
    hidden, _ = masked_prefill(model, full, alive, renumber=True)
    chances = model.lm_head(hidden)[:, length - 1 :].log_softmax(-1)
    close(chances.gather(2, new[..., None])[..., 0].sum(1).detach() / new.shape[1], out.sequences_scores)


@family
@attention
def test_several_tokens_at_once_and_crop(family: str, attention: str) -> None:
    model, batch = tiny.build(family, attention), tiny.inputs(family)
    handle = apply(model)
    new = torch.tensor([[7, 11, 5, 23]])
    full = extend(batch, new)
    with torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        alive = kept(handle, batch, more=4)
        step = dict(attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True)
        together = model(input_ids=new, **step).logits
        hidden, _ = masked_prefill(model, full, alive, renumber=True)
        expected = model.lm_head(hidden)[:, -4:]
        close(together, expected)
        cache.crop(-2)
        close(model(input_ids=new[:, 2:], **step).logits, expected[:, 2:])
        with pytest.raises(ValueError, match="cannot give back"):
            cache.crop(-30)


@family
@attention
def test_nothing_to_do_is_bit_identical(family: str, attention: str) -> None:
    model, batch = tiny.build(family, attention), tiny.inputs(family, BATCHES["padded, two images, text alone"])
    text = tiny.inputs(family, ((11,), (8,)))
    real, real_text = batch["attention_mask"].bool(), text["attention_mask"].bool()
    with torch.no_grad():
        stock, stock_text = model(**batch).logits, model(**text).logits
        stock_new, stock_text_new = generate(model, batch), generate(model, text)
        for settings in (DuetConfig(), DuetConfig(drops=[Drop(2, 1.0)])):
            with duet_vlm.apply(model, settings):
                assert torch.equal(model(**batch).logits[real], stock[real])
                assert torch.equal(generate(model, batch).sequences, stock_new.sequences)
        with apply(model) as handle:
            assert torch.equal(model(**text).logits[real_text], stock_text[real_text])
            assert torch.equal(torch.stack(generate(model, text).logits), torch.stack(stock_text_new.logits))
            assert not torch.equal(model(**batch).logits[real], stock[real])
        handle.remove()
        assert torch.equal(model(**batch).logits[real], stock[real])
        assert torch.equal(torch.stack(generate(model, batch).logits), torch.stack(stock_new.logits))
    assert not hasattr(model.config, "duet")
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.model.language_model.modules())


@family
def test_two_caches_interleaved_share_nothing(family: str) -> None:
    model, first, second = tiny.build(family), tiny.inputs(family, seed=1), tiny.inputs(family, ((2, 6),), seed=5)
    apply(model)
    steps = torch.tensor([[7], [11], [23]])

    def run(batches: list[dict[str, Any]]) -> list[list[Tensor]]:
        caches = [model(**b, use_cache=True).past_key_values for b in batches]
        results: list[list[Tensor]] = [[] for _ in batches]
        for token in steps:
            for result, cache in zip(results, caches, strict=True):
                result.append(model(input_ids=token[None], past_key_values=cache, use_cache=True).logits)
        return results

    with torch.no_grad():
        together, apart = run([first, second]), run([first]) + run([second])
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(torch.cat(a), torch.cat(b))


@family
def test_two_threads_on_one_model(family: str) -> None:
    model = tiny.build(family)
    batches = [tiny.inputs(family, ((3 + i, 9 - i),), seed=i) for i in range(2)]
    apply(model)
    expected = [generate(model, b).sequences for b in batches]
    wrong: list[Any] = []

    def work(i: int) -> None:
        for _ in range(8):
            try:
                if not torch.equal(generate(model, batches[i]).sequences, expected[i]):
                    wrong.append(i)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@family
def test_deep_copy_stands_alone(family: str) -> None:
    model, batch = tiny.build(family), tiny.inputs(family)
    apply(model)
    clone, other = copy.deepcopy(model), tiny.build(family, seed=9)
    clone.load_state_dict(other.state_dict())
    with torch.no_grad():
        before = model(**batch).logits
        with apply(other):
            assert torch.equal(clone(**batch).logits, other(**batch).logits)
        assert torch.equal(model(**batch).logits, before)
