"""Proportional attention beside the matrix: what it means, what it ranks, what it refuses, nothing where it is off."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close
from oracle import stage_2, token_sizes
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.engine.cache import pruned_layer
from duet_vlm.engine.merge_sizes import add_size_bias

MERGED: dict[str, Any] = dict(dominant=11, contextual=4, proportional=True)
LATE = [Drop(2, 0.5), Drop(4, 0.25)]


def masks(model: Any, batch: dict[str, Any]) -> list[Any]:
    """What each decoder layer is given as its mask."""
    seen: list[Any] = []
    layers = zoo.decoder(model).layers
    hooks = [x.register_forward_pre_hook(lambda m, a, k: seen.append(k["attention_mask"]), with_kwargs=True)
             for x in layers]  # fmt: skip
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return seen


def test_a_key_with_weight_is_so_many_equal_keys() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=generator) for n in (4, 6, 6))
    sizes = torch.tensor([[1, 5, 2, 1, 3, 1], [4, 1, 1, 7, 1, 2]])
    rows, columns = torch.arange(2, 6).expand(2, -1), torch.arange(6).expand(2, -1)
    mask = add_size_bias(None, rows, columns, sizes[:, :5].log(), query.dtype)  # what is behind weighs 1
    sizes[:, 5] = 1
    out = attend(query, key, value, attn_mask=mask)
    for row in range(2):
        owners = torch.arange(6).repeat_interleave(sizes[row])
        visible = owners <= rows[row, :, None]
        expected = attend(query[row], key[row, :, owners], value[row, :, owners], attn_mask=visible)
        torch.testing.assert_close(out[row], expected, atol=1e-5, rtol=1e-5)


def test_masks_are_made_only_where_it_is_on() -> None:
    model, batch = tiny.build(), tiny.inputs()
    off = {**MERGED, "proportional": False}
    with duet_vlm.apply(model, DuetConfig(**off)):
        assert masks(model, batch) == [None] * tiny.LAYERS
    with duet_vlm.apply(model, DuetConfig(**MERGED)):
        on = masks(model, batch)
    assert len({id(mask) for mask in on}) == 1 and on[0].dtype == torch.float32
    length = batch["input_ids"].shape[1] - tiny.PATCHES + 15
    assert on[0].shape == (1, 1, length, length) and int((on[0] > 0).any(2).sum()) > 0


def test_where_nothing_joins_nothing_changes() -> None:
    model, batch = zoo.build("internvl"), zoo.inputs("internvl", ((5, "i", 9),))
    whole: dict[str, Any] = dict(dominant=13, contextual=3, merging="visionzip", drops=LATE, query="all")
    logits = []
    for on in (False, True):
        with duet_vlm.apply(model, DuetConfig(**whole, proportional=on)), torch.no_grad():
            logits.append(model(**batch).logits)
    close(*logits)


@pytest.mark.parametrize("merging", ["duet", "pool", "prumerge"])
def test_ranking_sees_what_the_layer_pays(merging: str) -> None:
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig(**MERGED, merging=merging, drops=[Drop(2, 0.5, rank_at=1)], query="all")
    duet, seen = duet_vlm.apply(model, config), {}
    layer = model.model.language_model.layers[1]
    handle = layer.register_forward_pre_hook(lambda m, a, k: seen.update(k, hidden=a[0]), with_kwargs=True)
    with torch.no_grad():
        model(**batch)
        handle.remove()
        normed = layer.input_layernorm(seen["hidden"])

        def rotated(projection: Any) -> Any:
            heads = projection(normed).unflatten(-1, (-1, 8)).transpose(1, 2)
            return apply_rotary_pos_emb(heads, heads, *seen["position_embeddings"])[0]

        query, key = rotated(layer.self_attn.q_proj)[0], rotated(layer.self_attn.k_proj)[0]
    trace = duet.trace
    assert trace is not None
    sizes, sample = token_sizes(trace, batch, "llava")[0], trace.samples[0]
    visual = [-1, *trace.images[0].dominant, *trace.images[0].anchors]
    present = [i for i in range(len(sizes)) if i in sample.drops[0].kept or i not in sample.visual]
    asked = [present.index(i) for i in range(5 + tiny.PATCHES, len(sizes))]
    scores = stage_2(query, key, asked, [True] * len(present), sizes[present].tolist())
    plain = stage_2(query, key, asked, [True] * len(present))
    ranked = sample.drops[1]
    assert len(ranked.ranked) == len(visual) == 15 and float(sizes.max()) > 1
    expected = [scores[present.index(i)] for i in ranked.ranked]
    torch.testing.assert_close(torch.tensor(ranked.scores), torch.tensor(expected), atol=1e-5, rtol=1e-3)
    assert max(abs(plain[present.index(i)] - s) for i, s in zip(ranked.ranked, ranked.scores, strict=True)) > 1e-3


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision", "qwen2_5_vl"])
def test_features_encoded_beforehand_carry_their_sizes(family: str) -> None:
    """As `generate` does it; a second use of the same features finds them again."""
    model, batch = zoo.build(family), zoo.inputs(family, ((5, "i", 9), (3, "i", 4)))
    dominant, contextual = zoo.FAMILIES[family].stage_1
    config = DuetConfig(dominant, contextual, proportional=True)
    pixels = {k: batch[k] for k in ("pixel_values", "image_sizes", "image_grid_thw") if k in batch}
    others = {k: v for k, v in batch.items() if k not in ("pixel_values", "image_sizes")}
    with duet_vlm.apply(model, config), torch.no_grad():
        expected = model(**batch).logits
        encoded = {"image": model.model.get_image_features(**pixels, return_dict=True)}
        for _ in range(2):
            close(model(**others, mm_encoder_outputs=encoded).logits, expected)


def test_a_cache_layer_keeps_weights_beside_its_rows() -> None:
    cache = DynamicCache()
    layer = pruned_layer(cache, 0)
    kept, log_s = torch.tensor([[0, 2, 3], [1, 2, 3]]), torch.arange(8.0).view(2, 4)
    states = torch.randn(2, 1, 3, 4)
    prompt = {"holes": False, "removed": torch.ones(2, 1, dtype=torch.long)}
    layer.coming = layer.held.after_prompt(kept, 4, **prompt, log_sizes=log_s)
    layer.update(states, states)
    layer.coming = layer.held.after_text(1)
    layer.update(states[:, :, :1], states[:, :, :1])  # a token that is decoded
    layer.coming = layer.held.after_prompt(kept, 4, **prompt, log_sizes=log_s + 8)
    layer.update(states, states)
    assert layer.held.log_sizes.tolist() == [[0, 1, 2, 3, 0, 8, 9, 10, 11], [4, 5, 6, 7, 0, 12, 13, 14, 15]]
    layer.crop(-1)
    layer.reorder_cache(torch.tensor([1, 1]))
    assert layer.held.log_sizes.tolist() == [[4, 5, 6, 7, 0, 12, 13, 14]] * 2
    layer.batch_select_indices(torch.tensor([0]))
    layer.batch_repeat_interleave(3)
    assert layer.held.log_sizes.shape == (3, 8)
    layer.reset()
    assert layer.held.log_sizes is None


def test_gradients_with_checkpointing_are_those_without() -> None:
    batch, grads = tiny.inputs(), []
    labels = batch["input_ids"].clone()
    labels[:, :-3] = -100
    for checkpointing in (False, True):
        model = tiny.build()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        duet_vlm.apply(model.train(), DuetConfig(**MERGED, drops=LATE), tokenizer=tiny.Words())
        model(**batch, labels=labels).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert any("vision_tower" in name for name in grads[0]) and grads[0].keys() == grads[1].keys()
    for name, gradient in grads[0].items():
        torch.testing.assert_close(grads[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_saved_and_found_again(tmp_path: Any) -> None:
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig(**MERGED, drops=LATE)
    assert DuetConfig.from_dict(config.to_dict()) == config and not DuetConfig().proportional
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()), torch.no_grad():
        expected = model(**batch).logits
        model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert duet_vlm.apply(again, tokenizer=tiny.Words()).config == config
    with torch.no_grad():
        close(again(**batch).logits, expected)


def test_attention_without_an_additive_mask_is_refused() -> None:
    model, batch = tiny.build(), tiny.inputs()
    text = model.model.language_model.config
    text._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="proportional needs attention that adds a mask") as error:
        duet_vlm.apply(model, DuetConfig(**MERGED))
    assert "'flash_attention_2'" in str(error.value)
    assert str(error.value).endswith(".") and len(str(error.value)) < 260
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    text._attn_implementation_internal = "sdpa"
    calls: list[int] = []
    model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    with duet_vlm.apply(model, DuetConfig(**MERGED)), torch.no_grad():
        text._attn_implementation_internal = "flash_attention_2"
        with pytest.raises(ValueError, match="proportional needs attention that adds a mask"):
            model(**batch)
        assert not calls
        text._attn_implementation_internal = "sdpa"
        model(**batch)
