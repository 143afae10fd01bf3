"""The matrix of the families that have no stage 1: what `test_matrix` and its neighbours hold for the others."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept
from oracle import masked_stock
from torch import Tensor
from transformers import DynamicCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.engine import distributed

ROWS: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6), (12,))
SETTINGS: dict[str, dict[str, Any]] = {
    "two drops": dict(drops=[Drop(2, 0.5), Drop(4, 0.25)]),
    "positions kept": dict(drops=[Drop(2, 0.5), Drop(4, 0.25)], positions="keep", query="all"),
    "all gone late": dict(drops=[Drop(1, 0.6, rank_at=0), Drop(3, 0.0)], query="last"),
}
family = pytest.mark.parametrize("family", zoo.STAGE_2_ALONE)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
named = pytest.mark.parametrize("name", SETTINGS)


def apply(model: Any, name: str = "two drops") -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(**SETTINGS[name]), tokenizer=tiny.Words())


@family
@attention
@named
def test_prefill_and_decode_equal_the_oracle(family: str, attention: str, name: str) -> None:
    model, batch = zoo.build(family, attention), zoo.inputs(family, ROWS)
    handle = apply(model, name)
    out = generate(model, batch)
    length = batch["input_ids"].shape[1]
    full = zoo.extended(family, batch, out.sequences[:, length:-1])
    hidden, _ = masked_stock(model, full, kept(handle, batch, more=4), handle.renumbers)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())
    with torch.no_grad():
        logits = model(**batch, logits_to_keep=0).logits
        hidden, there = masked_stock(model, batch, kept(handle, batch), handle.renumbers)
        close(logits[there], model.lm_head(hidden)[there])
        counts = [sample.tokens_per_layer for sample in handle.trace.samples]
        assert counts[0][4] < counts[0][0] < counts[1][0] and counts[2][0] == 0


@family
@attention
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padded_batch_equals_one_by_one(family: str, attention: str, padding: str) -> None:
    model, batch = zoo.build(family, attention), zoo.inputs(family, ROWS, padding)
    apply(model)
    singles = [zoo.inputs(family, (row,), first=i) for i, row in enumerate(ROWS)]
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
def test_beams_equal_uncached_recompute(family: str) -> None:
    # one image a row: some stock models hand several over in another order then
    model, batch = zoo.build(family), zoo.inputs(family, ((5, "i", 9), (2, "i", 6)))
    handle = apply(model)
    out = generate(model, batch, 4, num_beams=3, output_scores=True)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:]
    with torch.no_grad():
        model(**batch)
    full = zoo.extended(family, batch, new[:, :-1])
    hidden, _ = masked_stock(model, full, kept(handle, batch, more=3), handle.renumbers)
    chances = model.lm_head(hidden)[:, length - 1 :].log_softmax(-1)
    close(chances.gather(2, new[..., None])[..., 0].sum(1).detach() / new.shape[1], out.sequences_scores)


@family
@torch.no_grad()
def test_a_second_turn_with_words_and_one_with_an_image(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ROWS[:1])
    handle = apply(model)
    full = zoo.extended(family, batch, torch.tensor([[7, 11, 5, 23]]))
    cache = DynamicCache(config=model.config.get_text_config())  # some stock models make none by themselves
    model(**batch, past_key_values=cache)
    alive = kept(handle, batch, more=4)
    asked = dict(attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True)
    together = model(input_ids=full["input_ids"][:, -4:], **asked).logits
    hidden, _ = masked_stock(model, full, alive, handle.renumbers)
    close(together, model.lm_head(hidden)[:, -4:])
    cache.crop(-2)
    again = model(input_ids=full["input_ids"][:, -2:], **asked).logits
    close(again, together[:, 2:])
    another = zoo.inputs(family, ((3, "i", 4),), seed=8)
    seen = torch.ones(1, full["input_ids"].shape[1] + another["input_ids"].shape[1], dtype=torch.long)
    held = [layer.keys.shape[-2] for layer in cache.layers]
    model(**another | {"attention_mask": seen}, past_key_values=cache, use_cache=True, logits_to_keep=1)
    brought = [layer.keys.shape[-2] - before for layer, before in zip(cache.layers, held, strict=True)]
    assert brought == [another["input_ids"].shape[1] - int(zoo.visual(another).sum()) + n
                       for n in handle.trace.samples[0].tokens_per_layer]  # fmt: skip


@family
@attention
def test_nothing_to_do_is_bit_identical(family: str, attention: str) -> None:
    model, batch, text = zoo.build(family, attention), zoo.inputs(family, ROWS), zoo.inputs(family, ((11,), (8,)))
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        stock, words, new = model(**batch).logits, model(**text).logits, generate(model, batch)
        for config in (DuetConfig(), DuetConfig(drops=[Drop(2, 1.0)])):
            with duet_vlm.apply(model, config):
                assert torch.equal(model(**batch).logits[real], stock[real])
        with apply(model):
            assert torch.equal(model(**text).logits, words)
            assert not torch.equal(model(**batch).logits[real], stock[real])
        assert torch.equal(model(**batch).logits[real], stock[real])
        assert torch.equal(torch.stack(generate(model, batch).logits), torch.stack(new.logits))
    hooks = [h for m in model.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    names = [getattr(type(getattr(hook, "__self__", None)), "__module__", "") + hook.__module__ for hook in hooks]
    assert not any("duet_vlm" in name for name in names)


@family
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_tower_and_last_layer(family: str, checkpointing: bool) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ROWS)
    apply(model)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-3] = -100
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(**batch, labels=labels).loss.backward()
    touched = [name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())]
    assert len([name for name in touched if "vision" in name]) > 5
    assert any("layers.4" in name for name in touched)
    model.zero_grad(set_to_none=True)
    nothing = distributed.encode_blank(model.base_model)
    nothing.backward()
    assert nothing == 0 and any("vision" in n for n, p in model.named_parameters() if p.grad is not None)


@family
@torch.no_grad()
def test_copies_saved_models_and_threads_share_nothing(family: str, tmp_path: Any) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ROWS)
    handle = apply(model)
    expected = model(**batch).logits
    clone, other = copy.deepcopy(model), zoo.build(family, seed=9)
    clone.load_state_dict(other.state_dict())
    with apply(other):
        assert torch.equal(clone(**batch).logits, other(**batch).logits)
    assert torch.equal(model(**batch).logits, expected)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert duet_vlm.apply(again, tokenizer=tiny.Words()).config == handle.config
    close(again(**batch).logits, expected)
    batches = [zoo.inputs(family, ((3 + i, "i", 9 - i),), seed=i) for i in range(2)]
    answers: list[Tensor] = [generate(model, one).sequences for one in batches]
    wrong: list[Any] = []

    def work(i: int) -> None:
        try:
            if not all(torch.equal(generate(model, batches[i]).sequences, answers[i]) for _ in range(3)):
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
def test_stage_1_is_refused_by_apply(family: str) -> None:
    model = zoo.build(family)
    with pytest.raises(DuetError, match=r"stage 1 .*; leave dominant None to use stage 2 alone\.$"):
        duet_vlm.apply(model, DuetConfig(dominant=4, contextual=2))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
