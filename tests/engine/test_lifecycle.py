"""Beyond one prompt: a second turn, saving and loading, gradients, adapters, half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from exactness import TOLERANCE, close, generate, kept
from matrix import apply, attention
from oracle import masked_prefill

import duet_vlm
from duet_vlm import Drop, DuetConfig

family = pytest.mark.parametrize("family", tiny.FAMILIES)


@family
@attention
@pytest.mark.parametrize("image", [False, True], ids=["text", "new image"])
def test_second_turn_on_the_same_cache(family: str, attention: str, image: bool) -> None:
    model, first = tiny.build(family, attention), tiny.inputs(family)
    second = tiny.inputs(family, ((3, 6),) if image else ((9,),), seed=4)
    handle = apply(model, family)
    with torch.no_grad():
        cache = model(**first, use_cache=True).past_key_values
        before = kept(handle, first)
        full = tiny.extended(first, second["input_ids"])
        now = {k: v for k, v in second.items() if k != "attention_mask"}
        logits = model(**now, attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True).logits
        after = kept(handle, second) if image else dict.fromkeys(before, second["attention_mask"].bool())
        alive = {layer: torch.cat([before[layer], after[layer]], 1) for layer in before}
        for name in ("pixel_values", "image_sizes"):
            if name in first:
                full[name] = torch.cat([first[name], second[name]]) if image else first[name]
        hidden, there = masked_prefill(model, full, alive, renumber=True)
    there = there[:, -logits.shape[1] :]
    close(logits[there], model.lm_head(hidden)[:, -logits.shape[1] :][there].detach())


@family
def test_saved_with_the_model(family: str, tmp_path: Path) -> None:
    model, batch = tiny.build(family), tiny.inputs(family)
    handle = apply(model, family)
    with torch.no_grad():
        expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == [type(model).__name__] and saved["duet"]["drops"][0]["layer"] == 2
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert not torch.equal(loaded(**batch).logits, expected)  # stock until applied
        again = duet_vlm.apply(loaded, tokenizer=tiny.Words())
        assert again.config == handle.config
        assert torch.equal(loaded(**batch).logits, expected)
    again.remove()
    assert loaded.config.duet == saved["duet"]  # apply did not put it there, so remove leaves it
    handle.remove()
    assert not hasattr(model.config, "duet")


@family
def test_gradients_with_checkpointing_equal_those_without(family: str) -> None:
    losses, gradients = [], []
    batch = tiny.inputs(family, ((5, 9), (2, 6)), padding="right")
    labels = batch["input_ids"].masked_fill((batch["input_ids"] == tiny.IMAGE) | (batch["attention_mask"] == 0), -100)
    labels[:, :8] = -100
    for checkpointing in (False, True):
        model = tiny.build(family).train()
        apply(model, family)
        if checkpointing:
            model.activation_checkpointing_enable()
        out = model(**batch, labels=labels)
        out.loss.backward()
        assert out.logits.shape[:2] == batch["input_ids"].shape
        losses.append(out.loss.item())
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)
    assert gradients[0].keys() == gradients[1].keys()
    assert any("vision_tower" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("first", ["apply", "adapter"])
def test_adapters_before_or_after(first: str) -> None:
    peft = pytest.importorskip("peft", reason="adapters are tested with the dev extra, which brings peft")
    torch.manual_seed(3)
    lora = peft.LoraConfig(r=2, target_modules=r".*(q_proj|k_proj|v_proj)", init_lora_weights=False)
    model, batch = tiny.build(), tiny.inputs()
    if first == "apply":
        apply(model)
        adapted = peft.get_peft_model(model, lora)
    else:
        adapted = peft.get_peft_model(model, lora)
        apply(adapted)
    with torch.no_grad():
        got = adapted(**batch).logits
        merged = adapted.merge_and_unload()  # the same weights without adapters
        close(merged(**batch).logits, got, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@family
def test_half_precision_stores_what_the_schedule_says(family: str, dtype: torch.dtype) -> None:
    model, batch = tiny.build(family, dtype=dtype), tiny.inputs(family, dtype=dtype)
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.5), Drop(4, 0.0)], query="last")):
        out = generate(model, batch, 3)
    text = int((batch["input_ids"] != tiny.IMAGE).sum()) + 2
    image = tiny.image_tokens(family)
    stored = [layer.keys.shape[-2] - text for layer in out.past_key_values.layers]
    assert stored == [image, image, image // 2, image // 2, 0]
    assert torch.stack(out.logits).isfinite().all()


@pytest.mark.parametrize("query", ["last", "salient"])
def test_trace_is_plain_data_and_adds_up(query: str) -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9), (2, 3, 6), (12,)))
    config = DuetConfig(dominant=13, contextual=4, drops=[Drop(2, 0.5), Drop(4, 0.25)], query=query)
    handle = duet_vlm.apply(model, config, tokenizer=tiny.Words())
    assert handle.trace is None
    generate(model, batch, 2)
    trace: Any = json.loads(json.dumps(handle.trace.to_dict()))  # type: ignore[union-attr]
    assert len(trace["images"]) == 3 and len(trace["samples"]) == 3
    for image in trace["images"]:
        places = image["dominant"] + image["anchors"] + [p for c in image["clusters"] for p in c]
        assert len(places) == len(set(places)) and len(image["dominant"]) == 12 and len(image["anchors"]) == 4
        best = sorted(range(36), key=lambda i: -image["scores"][i])[:12]
        assert sorted(best) == image["dominant"]
    for sample, images in zip(trace["samples"], (1, 2, 0), strict=True):
        assert sample["tokens_per_layer"] == [17 * images, 17 * images, 8 * images, 8 * images, 4 * images]
        for drop in sample["drops"][1:]:
            assert set(drop["kept"]) <= set(drop["ranked"]) and len(drop["scores"]) == len(drop["ranked"])
