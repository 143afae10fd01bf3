"""A drawn clip with its sound, a square that beeps while it is red: spans, budgets, places and counts, nothing else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import zoo
from exactness import close, kept
from hypothesis import given
from hypothesis import strategies as st
from oracle import masked_stock
from transformers import WhisperFeatureExtractor
from zoo_omni import AUDIO, AUDIO_END, AUDIO_START

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.audio import AudioSchedule
from duet_vlm.engine.guiding import shared_out
from duet_vlm.families.qwen2_5_vl import Qwen2VLVideoProcessor

FAMILY = "qwen2_5_omni_thinker"
SECONDS, RATE, SIDE, RED = 4, 16_000, 32, 2  # it is red in one second of four
HEARD = 25  # audio tokens of a second
SEEN = (SIDE // 8) ** 2  # visual tokens of a frame


def frames() -> np.ndarray[Any, Any]:
    """(T, side, side, 3) uint8, two frames a second: a square that wanders to the right."""
    drawn = np.full((2 * SECONDS, SIDE, SIDE, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(drawn):
        left = 2 * number
        frame[8:20, left : left + 12] = (220, 30, 30) if number // 2 == RED else (30, 60, 200)
    return drawn


def wave() -> np.ndarray[Any, Any]:
    """A tone while the square is red, silence before and after."""
    time = np.arange(SECONDS * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    return np.where(time.astype(int) == RED, tone, 0.0).astype(np.float32)


def clip() -> dict[str, Any]:
    """A question about both, second by second as the stock processor writes them, with `use_audio_in_video`."""
    video = Qwen2VLVideoProcessor(patch_size=4, merge_size=2, temporal_patch_size=2, do_resize=False)([frames()])
    hears = WhisperFeatureExtractor(feature_size=16, chunk_length=SECONDS)
    heard = hears(wave(), sampling_rate=RATE, return_attention_mask=True, return_tensors="pt")
    assert video["video_grid_thw"].tolist() == [[SECONDS, SIDE // 4, SIDE // 4]]
    second = [*[zoo.VIDEO] * SEEN, *[AUDIO] * HEARD]
    words = [7, 8, 9, 12, 15, 30]
    ids = torch.tensor([[5, zoo.START, AUDIO_START, *second * SECONDS, AUDIO_END, zoo.END, *words]])
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "use_audio_in_video": True,
        "pixel_values_videos": video["pixel_values_videos"], "video_grid_thw": video["video_grid_thw"],
        "video_second_per_grid": torch.tensor([1.0]), "input_features": heard["input_features"],
        "feature_attention_mask": heard["attention_mask"].long(),
    }  # fmt: skip


def model() -> Any:
    built = zoo.build(FAMILY)
    built.config.position_id_per_seconds = HEARD  # as in the published model: sound and video go by one clock
    return built


def test_the_clip_is_what_it_is_drawn_as() -> None:
    batch = clip()
    loud = batch["input_features"][0].mean(0).unflatten(0, (SECONDS, -1)).mean(1)
    assert int(loud.argmax()) == RED
    assert int(zoo.audio(batch).sum()) == SECONDS * HEARD and int(zoo.visual(batch).sum()) == SECONDS * SEEN
    positions = zoo.rope_index(model(), batch)[0, 0]
    for second in range(SECONDS):
        start = 3 + second * (SEEN + HEARD)
        together = positions[start : start + SEEN + HEARD] - positions[3]
        assert together.min() == second * HEARD and together.max() < (second + 1) * HEARD


@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_sound_and_video_keep_what_they_were_given(keep: float) -> None:
    network, batch = model(), clip()
    config = DuetConfig.preset("duet", model=network, keep=keep, audio_keep="auto")
    assert config.audio_keep == keep**0.5
    schedule = AudioSchedule.of(config, zoo.LAYERS)
    assert schedule is not None
    with torch.no_grad(), duet_vlm.apply(network, config, tokenizer=tiny.Words()) as handle:
        out = network(**batch)
        trace, alive = handle.trace, kept(handle, batch)
        hidden, there = masked_stock(network, batch, alive, False)
    close(out.logits[there], network.lm_head(hidden)[there])
    assert trace is not None and trace.audio is not None
    (sound,), sample = trace.audio.sounds, trace.audio.samples[0]
    counts = schedule.tokens_per_layer(SECONDS * HEARD, zoo.LAYERS)
    assert sample.tokens_per_layer == counts and len(sample.visual) == SECONDS * HEARD
    # each layer's count is rounded down once more than the budget
    assert 0 <= config.audio_keep * SECONDS * HEARD - sum(counts) / zoo.LAYERS < 2
    assert len(trace.images) == SECONDS and len(trace.samples[0].visual) == SECONDS * SEEN
    # every second is still heard, and its sound still stands behind its picture
    seconds = [(place - 3) // (SEEN + HEARD) for place in sample.drops[0].kept]
    assert set(seconds) == set(range(SECONDS)) and seconds == sorted(seconds)
    assert [place // HEARD for place in sound.anchors] == seconds
    order = sorted([*trace.samples[0].drops[0].kept, *sample.drops[0].kept])
    kinds = [(place - 3) // (SEEN + HEARD) * 2 + (int(batch["input_ids"][0, place]) == AUDIO) for place in order]
    assert kinds == sorted(kinds)


def test_silence_changes_the_sound_and_nothing_of_what_is_kept_of_the_video() -> None:
    network, batch = model(), clip()
    silence = batch | {"input_features": torch.full_like(batch["input_features"], batch["input_features"].min())}
    found = []
    with torch.no_grad(), duet_vlm.apply(network, DuetConfig(5, 2, audio_keep=0.4)) as handle:
        for one in (batch, silence):
            network(**one)
            found.append(handle.trace)
    loud, silent = found
    assert loud is not None and silent is not None and loud.audio is not None and silent.audio is not None
    assert loud.images == silent.images and loud.samples == silent.samples
    assert loud.audio.sounds != silent.audio.sounds
    assert loud.audio.samples[0].tokens_per_layer == silent.audio.samples[0].tokens_per_layer


def test_sound_says_how_much_of_each_window_of_its_video_stays() -> None:
    network, batch = model(), clip()
    plain = DuetConfig(9, 3, drops=[Drop(2, 0.5), Drop(4, 0.2)], audio_keep=0.3, query="last")
    found = []
    for config in (plain, replace(plain, audio_guides=True)):
        with torch.no_grad(), duet_vlm.apply(network, config) as handle:
            out = network(**batch)
            found.append(handle.trace)
            hidden, there = masked_stock(network, batch, kept(handle, batch), False)
        close(out.logits[there], network.lm_head(hidden)[there])
    free, guided = found
    assert free is not None and guided is not None and guided.audio is not None
    assert guided.samples[0].tokens_per_layer == free.samples[0].tokens_per_layer
    assert free.audio is not None and guided.audio.sounds == free.audio.sounds and guided.images == free.images
    (sound,) = guided.audio.sounds
    worth = [sum(place // HEARD == second for place in sound.anchors) / HEARD for second in range(SECONDS)]
    assert len(set(worth)) > 1
    for drop in guided.samples[0].drops[1:]:
        counts = [sum((place - 3) // (SEEN + HEARD) == second for place in drop.kept) for second in range(SECONDS)]
        assert counts == naive_shares(len(drop.kept), [12] * SECONDS, worth)
        assert sum(counts) == int({2: 0.5, 4: 0.2}[drop.layer] * 12 * SECONDS)


def naive_shares(total: int, tokens: list[int], worth: list[float]) -> list[int]:
    """One after the other to the window whose token would be worth the most."""
    counts = [0] * len(tokens)
    for _ in range(total):
        able = [i for i in range(len(tokens)) if counts[i] < tokens[i]]
        counts[max(able, key=lambda i: (Fraction(tokens[i]) * Fraction(worth[i]) / (counts[i] + 1), -i))] += 1
    return counts


@given(st.data())
def test_windows_share_a_drop_out(data: st.DataObject) -> None:
    windows = data.draw(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.25, 0.5, 1.0])), min_size=1), "windows"
    )
    tokens, worth = [n for n, _ in windows], [share for _, share in windows]
    total = data.draw(st.integers(0, sum(tokens)), "total")
    assert shared_out(total, tokens, worth) == naive_shares(total, tokens, worth)
