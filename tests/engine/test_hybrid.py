"""Hybrid decoders: where they rank, where holes stand, and what a later turn may bring. The matrix holds the rest."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
import zoo_members
import zoo_qwen
from exactness import close, generate, kept
from matrix import VIDEO_ROWS
from oracle import masked_stock
from transformers import DynamicCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.measuring.generation import bytes_per_token

family = pytest.mark.parametrize("family", zoo_qwen.HYBRIDS)
published = pytest.mark.parametrize("family", zoo_qwen.QWEN35)
PUBLISHED = [f"{kind}_attention" for kind in 2 * ["linear", "linear", "linear", "full"]]  # the pattern of checkpoints
IMAGES: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6))


def build(family: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family with the layers of its checkpoints, eight of them."""
    monkeypatch.setitem(zoo_qwen.HYBRID, "layer_types", PUBLISHED)
    monkeypatch.setitem(zoo_qwen.QWEN_TEXT, "num_hidden_layers", len(PUBLISHED))
    kind = {"qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe"}[family]
    monkeypatch.setitem(zoo.FAMILIES, family, zoo_members.qwen_member(kind, zoo_qwen.video_with_times))
    return zoo.build(family)


def apply(model: Any, drops: list[Drop], **settings: Any) -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(drops=drops, **settings), tokenizer=tiny.Words())


@published
@pytest.mark.parametrize("stage_1", [{}, {"dominant": 7, "contextual": 3}])
def test_a_drop_is_ranked_by_the_last_attention_before_it(
    family: str, stage_1: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build(family, monkeypatch), zoo.inputs(family, VIDEO_ROWS)
    with apply(model, [Drop(5, 0.5), Drop(7, 0.2)], **stage_1) as handle:
        out = generate(model, batch)
        drops = {drop.layer: drop for drop in handle.trace.samples[0].drops}
        assert (drops[5].ranked_at, drops[7].ranked_at) == (3, 7)
        assert [drop.rank_at for drop in handle.config.drops] == [None, None]
        # a layer's share of a token in a cache: keys and values of two heads of 16 in float32, or a state
        assert bytes_per_token(out.past_key_values) == 2 * [0, 0, 0, 2 * 2 * 16 * 4]
        scores = {layer: drop.scores for layer, drop in drops.items()}
        length = batch["input_ids"].shape[1]
        full = zoo.extended(family, batch, out.sequences[:, length:-1])
        hidden, _ = masked_stock(model, full, kept(handle, batch, more=4), False)
        close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())
    with apply(model, [Drop(5, 0.5, rank_at=3), Drop(7, 0.2)], **stage_1) as handle, torch.no_grad():
        model(**batch, logits_to_keep=1)
        assert {drop.layer: drop.scores for drop in handle.trace.samples[0].drops} == scores


@published
def test_a_drop_that_no_layer_can_rank_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family, monkeypatch)
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    with pytest.raises(DuetError, match=r"drop at layer 2 .*: layers 0 to 1 have linear .*, so rank at layer 3 or "):
        apply(model, [Drop(2, 0.5, rank_at=1)])
    with pytest.raises(DuetError, match=r"drop at layer 6 .*: layers 5 to 6 have linear .*, so rank at layer 7 or "):
        apply(model, [Drop(4, 0.5), Drop(6, 0.2)])
    with pytest.raises(DuetError, match=r"drop at layer 5 .*: layer 5 has linear attention"):
        apply(model, [Drop(4, 0.5), Drop(5, 0.2)])
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    # nothing is ranked where nothing or everything stays
    apply(model, [Drop(1, 1.0), Drop(2, 0.0)]).remove()


@family
@torch.no_grad()
def test_a_row_without_padding_has_its_own_state_beside_one_padded_right(family: str) -> None:
    model, images = zoo.build(family), (2, "i", "i", "i", "i", 1)
    rows = (images, (zoo.inputs(family, (images,))["input_ids"].shape[1] - 4,))  # the longer one keeps less
    apply(model, [Drop(2, 0.3)], dominant=7, contextual=3)
    batch = zoo.inputs(family, rows, "right")
    lengths = batch["attention_mask"].sum(1).tolist()
    assert lengths[0] > lengths[1]
    caches = [model(**one, use_cache=True).past_key_values for one in (batch, zoo.inputs(family, rows[:1]))]
    assert caches[0].layers[3].keys.shape[-2] > caches[1].layers[3].keys.shape[-2]  # holes
    for together, alone in zip(*(cache.layers for cache in caches), strict=True):
        for one, other in zip(states(together), states(alone), strict=True):
            close(one[:1], other)


def states(layer: Any) -> list[Any]:
    """What a linear layer of a cache holds: short convolutions have no recurrent state."""
    found = [getattr(layer, name, {}).get(0) for name in ("conv_states", "recurrent_states")]
    return [state for state in found if state is not None]


def turn(family: str, model: Any, rows: zoo.Rows, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A later turn of these rows, with its positions, behind a first of text alone."""
    first, batch = zoo.inputs(family, ((6,),) * len(rows)), zoo.inputs(family, rows, seed=seed)
    per_token = [name for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in batch]
    whole = dict(batch)
    for name in per_token:
        whole[name] = torch.cat([first[name], batch[name]], 1)
    length = whole["input_ids"].shape[1]
    plain = torch.arange(length).expand(len(rows), -1)
    positions = zoo.rope_index(model, whole) if zoo.FAMILIES[family].mrope else plain
    batch["position_ids"] = positions[..., 6:]
    return first, batch | {"attention_mask": whole["attention_mask"]}


@family
@torch.no_grad()
def test_rows_of_a_later_turn_keep_as_many_tokens_or_are_refused(family: str) -> None:
    model = zoo.build(family)
    apply(model, [Drop(2, 0.3)])
    for seed in range(1, 30):
        sizes = [len(zoo.inputs(family, ((4, "i", 5),), seed=seed, first=i)["input_ids"][0]) for i in range(2)]
        if sizes[0] == sizes[1]:
            break
    first, later = turn(family, model, ((4, "i", 5),) * 2, seed)
    cache = model(**first, use_cache=True).past_key_values
    together = model(**later, past_key_values=cache).logits
    for row in range(2):
        alone = zoo.inputs(family, ((4, "i", 5),), seed=seed, first=row)
        one = alone | {"attention_mask": later["attention_mask"][row : row + 1]}
        one["position_ids"] = later["position_ids"][..., row : row + 1, :]
        start = {k: v[row : row + 1] for k, v in first.items()}
        cache = model(**start, use_cache=True).past_key_values
        close(together[row], model(**one, past_key_values=cache).logits[0])
    # as long, with more of it dropped: refused before a layer has run
    ragged = ((4, "i", 5), (4 + sizes[0] - 9, 5))
    first, later = turn(family, model, ragged, seed)
    cache = model(**first, use_cache=True).past_key_values
    before = [state.clone() for layer in cache.layers for state in states(layer)]
    with pytest.raises(DuetError, match=r"rows of a later turn would keep \d+ to \d+ tokens"):
        model(**later, past_key_values=cache)
    after = [state for layer in cache.layers for state in states(layer)]
    assert cache.get_seq_length() == 6 and all(map(torch.equal, before, after))


@family
@pytest.mark.parametrize("at", [1, 2, 4])
@torch.no_grad()
def test_a_call_that_failed_leaves_a_cache_that_is_refused(family: str, at: int) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, IMAGES)
    apply(model, [Drop(2, 0.5)])
    cache = DynamicCache(config=model.config.text_config)

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    hook = model.model.language_model.layers[at].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        model(**batch, past_key_values=cache)
    hook.remove()
    with pytest.raises(DuetError, match="a call that failed left this cache"):
        model(**batch, past_key_values=cache)
