"""The room that knows the host: each name that the engine relies on is there, and both names of the cache work."""

from __future__ import annotations

import pytest
import tiny
import torch

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError, host

BOTH = DuetConfig(dominant=13, contextual=4, cluster_width=3, drops=[Drop(2, 0.5), Drop(4, 0.25)])


@pytest.mark.parametrize("name", host.NEEDS)
def test_the_host_has(name: str) -> None:
    assert name not in host.missing()


def test_a_host_that_lacks_something_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(host.NEEDS, "DynamicLayer.update(key_states, value_states)", lambda: False)
    host.check_host.cache_clear()
    with pytest.raises(DuetError, match=r"DynamicLayer.update.* is not there, so duet-vlm .* with transformers 5"):
        duet_vlm.apply(tiny.build(), BOTH, tokenizer=tiny.Words())
    monkeypatch.undo()
    host.check_host.cache_clear()
    duet_vlm.apply(tiny.build(), BOTH, tokenizer=tiny.Words())


def test_flex_attention_is_refused_before_anything_is_touched() -> None:
    model = tiny.build(attention="flex_attention")
    with pytest.raises(DuetError, match="'flex_attention' hides its masks"):
        duet_vlm.apply(model, BOTH, tokenizer=tiny.Words())
    assert not hasattr(model.config, "duet") and duet_vlm.handle_of(model) is None


@torch.no_grad()
def test_a_cache_comes_by_either_name_or_by_position() -> None:
    from transformers import DynamicCache

    model, batch = tiny.build(), tiny.inputs()
    duet_vlm.apply(model, BOTH, tokenizer=tiny.Words())
    expected = model(**batch, use_cache=True, logits_to_keep=1).logits
    for name in host.CACHE_NAMES:
        if name in host.argument_names(type(model)) or name == "past_key_values":
            cache = DynamicCache(config=model.config.get_text_config())
            got = model(**batch, **{name: cache}, use_cache=True, logits_to_keep=1)
            assert torch.equal(got.logits, expected) and host.output_cache(got) is cache
            assert [layer.keys.shape[2] for layer in cache.layers] == [31, 31, 22, 22, 18]
    cache = DynamicCache(config=model.config.get_text_config())
    args = (batch["input_ids"], batch["pixel_values"], batch["attention_mask"], None, cache)
    assert torch.equal(model(*args, use_cache=True, logits_to_keep=1).logits, expected)
    assert cache.layers[4].keys.shape[2] == 18
