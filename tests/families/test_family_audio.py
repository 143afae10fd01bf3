"""Sound in Qwen2.5-Omni's thinker, compressed: held against the encoder's own attention and slow loops."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept
from oracle import masked_stock, stage_2_keep
from test_family_qwen_omni import with_sound
from torch import Tensor
from zoo_omni import AUDIO, sound, tokens_of

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.audio import AudioSchedule

FAMILY = "qwen2_5_omni_thinker"
WINDOW = 4  # 2 n_window frames of the spectrum, four of which are a token
DROPS = [Drop(2, 0.5), Drop(4, 0.25)]


def prompt(frames: tuple[int, ...] = (84, 37, 50), seed: int = 3, image: bool = True) -> dict[str, Any]:
    """A picture, then sounds of so many frames, the first two without text between them."""
    batch = zoo.inputs(FAMILY, ((5, "i", 3) if image else (5,),), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    heard = [sound(generator, n) for n in frames]
    ids = [*heard[0][0], *(token for places, _ in heard[1:] for token in places), 11, 12, 13]
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([ids])], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return batch | {name: torch.cat([one[name] for _, one in heard]) for name in heard[0][1]}


def config(**more: Any) -> DuetConfig:
    return DuetConfig(**{"dominant": 7, "contextual": 3, "drops": DROPS, "audio_keep": 0.5} | more)


def apply(model: Any, **more: Any) -> duet_vlm.Duet:
    return duet_vlm.apply(model, config(**more), tokenizer=tiny.Words())


def encoded(model: Any, batch: dict[str, Any]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Features of the stock encoder, and each sound's scores and keys from its last layer, chunk by chunk."""
    attention, got = model.model.audio_tower.layers[-1].self_attn, {}
    hook = attention.register_forward_pre_hook(lambda m, a, k: got.update(k), with_kwargs=True)
    with torch.no_grad():
        names = ("input_features", "feature_attention_mask")
        features = model.model.get_audio_features(**{name: batch[name] for name in names}).last_hidden_state
    hook.remove()
    hidden, ends = got["hidden_states"], got["cu_seqlens"].tolist()
    query, key = (
        getattr(attention, name)(hidden).detach().view(len(hidden), attention.num_heads, -1)
        for name in ("q_proj", "k_proj")
    )
    scores = torch.zeros(len(hidden))
    for start, end in pairwise(ends):
        for head in range(attention.num_heads):
            logits = query[start:end, head] @ key[start:end, head].T / attention.head_dim**0.5
            scores[start:end] += logits.softmax(-1).sum(0) / attention.num_heads
    found, start = [], 0
    for frames in batch["feature_attention_mask"].sum(1).tolist():
        n, length = tokens_of(frames), (frames - 1) // 2 + 1
        pairs = [(start + 2 * i, start + 2 * i + 1) for i in range(n)]
        found.append((torch.stack([(scores[a] + scores[b]) / 2 for a, b in pairs]), key.mean(1)))
        start += length
    return features, found


def test_scores_are_the_attention_received_and_clusters_stay_in_their_window() -> None:
    model, batch = zoo.build(FAMILY), prompt()
    _, expected = encoded(model, batch)
    handle = apply(model)
    with torch.no_grad():
        model(**batch)
    schedule = AudioSchedule.of(config(), zoo.LAYERS)
    assert handle.trace is not None and handle.trace.audio is not None and schedule is not None
    for found, (scores, _) in zip(handle.trace.audio.sounds, expected, strict=True):
        close(torch.tensor(found.scores), scores)
        assert len(found.anchors) == schedule.retained(len(scores)) and not found.dominant
        assert sorted(found.anchors + [i for members in found.clusters for i in members]) == list(range(len(scores)))
        assert {place // WINDOW for place in found.anchors} == {i // WINDOW for i in range(len(scores))}
        for anchor, members in zip(found.anchors, found.clusters, strict=True):
            assert all(member // WINDOW == anchor // WINDOW for member in members)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_language_model_gets_means_at_their_places_and_stock_positions(attention: str) -> None:
    model, batch = zoo.build(FAMILY, attention), prompt()
    got: dict[str, Any] = {}
    model.model.language_model.register_forward_pre_hook(lambda m, a, k: got.update(k), with_kwargs=True)
    with torch.no_grad():
        model(**batch)
        stock, positions = got["inputs_embeds"], got["position_ids"]
        handle = apply(model)
        model(**batch)
    features, _ = encoded(model, batch)
    places = (batch["input_ids"][0] == AUDIO).nonzero()[:, 0]
    assert handle.trace is not None and handle.trace.audio is not None
    entered, start = [], 0
    for found in handle.trace.audio.sounds:
        for anchor, members in zip(found.anchors, found.clusters, strict=True):
            mean = torch.stack([features[start + i] for i in (anchor, *members)]).mean(0)
            close(got["inputs_embeds"][0, places[start + anchor]], mean)
            entered.append(int(places[start + anchor]))
        start += len(found.scores)
    assert handle.trace.audio.samples[0].drops[0].kept == entered
    assert torch.equal(got["position_ids"], positions)
    text = ~zoo.visual(batch) & ~zoo.audio(batch)
    assert torch.equal(got["inputs_embeds"][text], stock[text])


def test_every_sound_has_a_budget_of_its_own_and_images_keep_theirs() -> None:
    model, batch = zoo.build(FAMILY), prompt()
    with torch.no_grad():
        with apply(model, audio_keep=None) as silent:
            model(**batch)
            deaf = silent.trace
        handle = apply(model)
        model(**batch)
    trace, schedule = handle.trace, AudioSchedule.of(config(), zoo.LAYERS)
    assert deaf is not None and deaf.audio is None and "audio" not in deaf.to_dict()
    assert trace is not None and trace.audio is not None and schedule is not None
    assert trace.images == deaf.images and trace.samples[0].visual == deaf.samples[0].visual
    assert trace.samples[0].tokens_per_layer == deaf.samples[0].tokens_per_layer
    sample = trace.audio.samples[0]
    each = [schedule.tokens_per_layer(len(found.scores), zoo.LAYERS) for found in trace.audio.sounds]
    assert sample.tokens_per_layer == [sum(counts) for counts in zip(*each, strict=True)]
    ends = [0]
    for found in trace.audio.sounds:
        ends.append(ends[-1] + len(found.scores))
    for drop in sample.drops[1:]:
        spans = [next(i for i, end in enumerate(ends) if sample.visual.index(place) < end) for place in drop.ranked]
        limits = {i: counts[drop.layer] for i, counts in enumerate(each, start=1)}
        best = stage_2_keep(drop.scores, spans, limits)
        assert drop.kept == sorted(drop.ranked[i] for i in best)
    assert sorted(trace.to_dict()) == ["audio", "images", "samples"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("more", [{}, {"dominant": None, "contextual": 0}, {"drops": []}, {"debias": True}])
def test_prefill_and_cached_decode_equal_the_masking_oracle(attention: str, image: bool, more: dict[str, Any]) -> None:
    model, batch = zoo.build(FAMILY, attention), prompt(image=image)
    handle = apply(model, **more)
    with torch.no_grad():
        out = model(**batch)
    hidden, there = masked_stock(model, batch, kept(handle, batch), False)
    close(out.logits[there], model.lm_head(hidden)[there].detach())
    answer = generate(model, batch)
    length = batch["input_ids"].shape[1]
    full = zoo.extended(FAMILY, batch, answer.sequences[:, length:-1])
    hidden, _ = masked_stock(model, full, kept(handle, batch, more=4), False)
    close(torch.stack(answer.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


def test_all_of_a_sound_is_stock() -> None:
    model, batch = zoo.build(FAMILY), prompt()
    with torch.no_grad():
        stock = model(**batch).logits
        handle = duet_vlm.apply(model, DuetConfig(audio_keep=1.0))
        close(model(**batch).logits, stock)
        assert handle.compresses and handle.trace is not None and handle.trace.audio is not None
        handle.use(DuetConfig())
        assert torch.equal(model(**batch).logits, stock)
        handle.use(config(query="last"))
        assert not torch.allclose(model(**batch).logits, stock, atol=1e-3)
        handle.remove()
        assert torch.equal(model(**batch).logits, stock)
        features = model.model.get_audio_features(
            batch["input_features"], batch["feature_attention_mask"]
        ).last_hidden_state
        with apply(model):
            same = model.model.get_audio_features(batch["input_features"], batch["feature_attention_mask"])
    assert torch.equal(same.last_hidden_state, features)


def test_a_second_turn_brings_another_sound() -> None:
    model, batch = zoo.build(FAMILY), prompt((41,), image=False)
    handle = apply(model, drops=[Drop(2, 0.5)], query="last")
    more = prompt((60,), seed=4, image=False)
    both = {name: torch.cat([batch[name], more[name]], 1) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        first = model(**batch, use_cache=True)
        alive = kept(handle, batch)
        second = model(
            **{**more, "attention_mask": both["attention_mask"]}, past_key_values=first.past_key_values,
            position_ids=torch.arange(batch["input_ids"].shape[1], both["input_ids"].shape[1]).expand(3, 1, -1),
        )  # fmt: skip
        later = kept(handle, more)
    both |= {name: torch.cat([batch[name], more[name]]) for name in ("input_features", "feature_attention_mask")}
    together = {layer: torch.cat([alive[layer], later[layer]], 1) for layer in alive}
    hidden, there = masked_stock(model, both, together, False)
    expected, length = model.lm_head(hidden).detach(), batch["input_ids"].shape[1]
    close(first.logits[there[:, :length]], expected[:, :length][there[:, :length]])
    close(second.logits[there[:, length:]], expected[:, length:][there[:, length:]])


def test_settings_are_saved_with_the_model_and_answers_never_ask(tmp_path: Path) -> None:
    model, batch = zoo.build(FAMILY), with_sound(FAMILY)
    handle = apply(model)
    labels = batch["input_ids"].clone()
    labels[:, :-2] = -100
    model.train()
    model(**batch, labels=labels).loss.backward()
    tower = [p.grad for name, p in model.named_parameters() if "audio_tower" in name and p.grad is not None]
    assert len(tower) > 5 and all(bool((gradient != 0).any()) for gradient in tower)
    assert handle.trace is not None and max(handle.trace.samples[0].queries) < batch["input_ids"].shape[1] - 2
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with duet_vlm.apply(again, tokenizer=tiny.Words()) as read:
        assert read.config == config() and read.config.audio_keep == 0.5
