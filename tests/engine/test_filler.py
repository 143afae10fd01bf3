"""An odd number of kept tokens is computed with one more behind it, which nobody sees."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept
from oracle import masked_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig

# 13 visual tokens and 14 of text, then 6 and 14; and 14 and 14, then 7 and 14
ODD_FIRST = DuetConfig(dominant=10, contextual=3, drops=[Drop(2, 0.5)])
ODD_LAST = DuetConfig(dominant=10, contextual=4, drops=[Drop(2, 0.5)])


def lengths(model: Any) -> list[int]:
    """Filled as the layers are called: how many tokens each works on."""
    seen: list[int] = []
    for layer in model.model.language_model.layers:
        layer.register_forward_hook(lambda _, args, output: seen.append(args[0].shape[1]))
    return seen


@pytest.mark.parametrize("config", [ODD_FIRST, ODD_LAST], ids=["odd first", "odd last"])
def test_layers_work_on_even_lengths_and_the_cache_stores_the_tokens_alone(config: DuetConfig) -> None:
    model, batch = zoo.build("llava", "sdpa"), zoo.inputs("llava", ((5, "i", 9),))
    handle, seen = duet_vlm.apply(model, config, tokenizer=tiny.Words()), lengths(model)
    with torch.no_grad():
        out = model(**batch)
    stored = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    text = 14
    entered = stored[0] - text
    assert stored == [n + text for n in handle.trace.samples[0].tokens_per_layer]
    assert stored[2] - text == entered // 2
    assert seen == [n + n % 2 for n in stored]
    assert any(n % 2 for n in stored)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("drops", [[Drop(2, 0.5)], [Drop(2, 0.34), Drop(4, 0.0)]], ids=["one drop", "two drops"])
@pytest.mark.parametrize("text", [9, 10])
def test_filled_prefill_and_decode_equal_the_oracle(family: str, drops: list[Drop], text: int) -> None:
    model, batch = zoo.build(family, "sdpa"), zoo.inputs(family, ((5, "i", text),))
    dominant, contextual = zoo.FAMILIES[family].stage_1
    config = DuetConfig(dominant=dominant, contextual=contextual, drops=drops)
    handle = duet_vlm.apply(model, config, tokenizer=tiny.Words())
    out = generate(model, batch)
    length = batch["input_ids"].shape[1]
    new = out.sequences[:, length:-1]
    alive = kept(handle, batch, more=new.shape[1])
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new), alive, handle.renumbers)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


def test_gradients_are_those_without_filler(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for even in (True, False):
        if not even:
            monkeypatch.setattr("duet_vlm.engine.filler.put_on", lambda layer, hidden, *_: hidden)
        model, batch = zoo.build("llava", "sdpa").train(), zoo.inputs("llava", ((5, "i", 9),))
        duet_vlm.apply(model, ODD_FIRST, tokenizer=tiny.Words())
        seen = lengths(model)
        labels = batch["input_ids"].clone()
        labels[:, :-4] = -100
        model(**batch, labels=labels, use_cache=False).loss.backward()
        assert all(n % 2 == 0 for n in seen) == even
        gradients.append([p.grad for p in model.parameters()])
    for with_filler, without in zip(*gradients, strict=True):
        assert (with_filler is None) == (without is None)
        if with_filler is not None:
            close(with_filler, without)
