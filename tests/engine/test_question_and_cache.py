"""Queries are the prompt's own question; a compressed cache goes on rightly or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from transformers import DynamicCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError, host

BOTH = dict(dominant=13, contextual=4, cluster_width=3, drops=[Drop(2, 0.5), Drop(4, 0.25)])
STAGE_2 = dict(drops=[Drop(2, 0.5), Drop(3, 0.25)], query="last")


def on(model: Any, **settings: Any) -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(**(settings or BOTH)), tokenizer=tiny.Words())


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "internvl"])
@torch.no_grad()
def test_generating_without_a_cache_equals_generating_with_one(family: str) -> None:
    for seed in range(3):
        model, batch = zoo.build(family, seed=seed), zoo.inputs(family, ((5, "i", 9),), seed=seed)
        on(model, **STAGE_2)
        cached, plain = (torch.stack(generate(model, batch, 6, use_cache=cache).logits) for cache in (True, False))
        close(plain, cached)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
@torch.no_grad()
def test_an_answer_that_is_scored_does_not_ask(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ((5, "i", 9),))
    on(model, **STAGE_2)
    out = generate(model, batch, 8)
    full = zoo.extended(family, batch, out.sequences[:, -8:])
    full.pop("position_ids", None)
    scores = model(**full, logits_to_keep=9).logits[:, :-1]
    close(scores, torch.stack(out.logits, 1))


@torch.no_grad()
def test_a_cached_prefix_changes_no_choice() -> None:
    for seed in range(5):
        model = zoo.build("llava", seed=seed)
        handle, prefix = on(model), torch.randint(3, 90, (1, 30), generator=torch.Generator().manual_seed(seed))
        batch = zoo.inputs("llava", ((2, "i", 5),), seed=seed + 1)
        ids = torch.cat([prefix, batch["input_ids"]], 1)
        batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        generate(model, batch, 1)
        whole = [drop.kept for drop in handle.trace.samples[0].drops]
        cache = DynamicCache(config=model.config)
        model(input_ids=prefix, **host.cache_argument(type(model).forward, cache))
        generate(model, batch, 1, **host.cache_argument(type(model).forward, cache))
        assert [[place + 30 for place in drop.kept] for drop in handle.trace.samples[0].drops] == whole


@pytest.mark.parametrize("settings", [dict(dominant=13, contextual=4), STAGE_2])
@torch.no_grad()
def test_rows_of_several_samples_are_refused(settings: dict[str, Any]) -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9),))
    ids = torch.cat([batch["input_ids"], batch["input_ids"]], 1)
    packed = {"input_ids": ids, "pixel_values": torch.cat([batch["pixel_values"]] * 2), "use_cache": False}
    n = batch["input_ids"].shape[1]
    on(model, **settings)
    with pytest.raises(DuetError, match="position_ids go back within a row"):
        model(**packed, position_ids=torch.cat([torch.arange(n)] * 2)[None])
    block = torch.block_diag(*[torch.ones(n, n).tril()] * 2).bool()[None, None]
    with pytest.raises(DuetError, match="not causal with padding"):
        model(**packed, attention_mask=block)


@torch.no_grad()
def test_padding_in_a_mask_of_four_dimensions_is_padding() -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9), (2, 3)))
    on(model)
    expected, mask = model(**batch, use_cache=False).logits, batch["attention_mask"].bool()
    n = mask.shape[1]
    four = torch.ones(n, n).tril().bool()[None, None] & mask[:, None, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(**batch, position_ids=positions, use_cache=False).logits
    got = model(**batch | {"attention_mask": four}, position_ids=positions, use_cache=False).logits
    close(got[mask], expected[mask])


@torch.no_grad()
def test_a_compressed_cache_outlives_settings_but_not_the_engine() -> None:
    model, batch = tiny.build(), tiny.inputs()
    handle, step = on(model), torch.tensor([[7]])
    name = next(iter(host.cache_argument(type(model).forward, None)))
    expected = model(input_ids=step, **{name: model(**batch, use_cache=True)[name]}).logits
    for other in (DuetConfig(), DuetConfig(**BOTH, positions="keep"), DuetConfig(**STAGE_2)):
        cache = model(**batch, use_cache=True)[name]
        handle.use(other)
        close(model(input_ids=step, **{name: cache}).logits, expected)
        handle.use(DuetConfig(**BOTH))
    cache = model(**batch, use_cache=True)[name]
    handle.remove()
    lengths = [layer.keys.shape[2] for layer in cache.layers]
    with pytest.raises(DuetError, match="the model is not compressed now"):
        model(input_ids=step, **{name: cache})
    assert [layer.keys.shape[2] for layer in cache.layers] == lengths
    stock = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    cache.reset()
    close(model(input_ids=torch.tensor([[5, 6, 7]]), **{name: cache}).logits, stock)
    with on(model):
        cache.reset()
        close(model(input_ids=torch.tensor([[5, 6, 7]]), **{name: cache}).logits, stock)


@pytest.mark.parametrize("layer", [0, 2, 4])
@torch.no_grad()
def test_a_cache_of_a_call_that_failed_is_as_before_or_refused(layer: int) -> None:
    model, batch = tiny.build(), tiny.inputs()
    handle, cache = on(model), DynamicCache(config=model.config.get_text_config())
    ask = batch | host.cache_argument(type(model).forward, cache) | {"use_cache": True}

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    hook = model.model.language_model.layers[layer].self_attn.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        model(**ask)
    hook.remove()
    assert handle.trace is None
    if layer == 0:
        expected = model(**batch).logits
        close(model(**ask).logits, expected)
    else:
        with pytest.raises(DuetError, match="a call that failed left this cache"):
            model(**ask)


def test_configs_handles_and_decoders_are_not_shared_by_accident() -> None:
    model = tiny.build()
    model.config.duet = saved = DuetConfig(**BOTH).to_dict()
    on(model, dominant=9).remove()
    assert model.config.duet == saved
    handle = on(model)
    with pytest.raises(DuetError, match=r"compressed already.*handle_of"):
        on(model)
    duet_vlm.handle_of(model).remove()
    assert not handle.applied
    with pytest.raises(DuetError, match="this handle was removed"):
        handle.use(DuetConfig(dominant=9))


def test_a_static_cache_is_refused_as_what_it_is() -> None:
    model, batch = tiny.build(), tiny.inputs()
    duet_vlm.apply(model, DuetConfig(dominant=9, drops=[Drop(2, 0.5)]), tokenizer=tiny.Words())
    with pytest.raises(DuetError, match=r"cannot be dropped from a cache of Static.*: use the default dynamic cache"):
        model.generate(**batch, max_new_tokens=2, cache_implementation="static")
