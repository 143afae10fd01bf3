"""`audio_keep`: what it means on a decoder, what a preset makes of "auto", and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import zoo
from hostile import VALUES, one_sentence
from hypothesis import given
from hypothesis import strategies as st

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.audio import AudioSchedule
from duet_vlm.measuring.costs import cost_report
from duet_vlm.serving.engines import choose
from duet_vlm.vllm.settings import check_fits

DROPS = [Drop(2, 0.5), Drop(4, 0.0)]


@given(st.data())
def test_a_schedule_averages_to_what_was_asked_for(data: st.DataObject) -> None:
    layers = data.draw(st.integers(2, 60), "layers")
    where = sorted(data.draw(st.sets(st.integers(1, layers - 1), max_size=4), "drops"))
    keep = data.draw(st.floats(0.01, 1), "keep")
    drops = [Drop(layer, 0.0 if number else 0.5) for number, layer in enumerate(where)]
    schedule = AudioSchedule.of(DuetConfig(drops=drops, audio_keep=keep), layers)
    assert schedule is not None and list(schedule.ratios) == where
    many = 10**13
    counts = schedule.tokens_per_layer(many, layers)
    assert sum(counts) / layers / many == pytest.approx(keep, abs=1e-6)
    # every step leaves the same share
    steps = [many, counts[0], *(counts[layer] for layer in where)]
    for before, after in pairwise(steps):
        assert after / before == pytest.approx(schedule.merged, rel=1e-5)


def test_one_token_is_left_of_the_shortest_sound_and_nothing_is_text() -> None:
    schedule = AudioSchedule.of(DuetConfig(audio_keep=0.01), 4)
    assert schedule is not None and schedule.tokens_per_layer(3, 4) == [1, 1, 1, 1]
    assert AudioSchedule.of(DuetConfig(drops=DROPS), 4) is None


def test_auto_is_the_root_of_the_share_of_visual_tokens() -> None:
    model = zoo.build("qwen2_5_omni_thinker")
    assert DuetConfig.preset("duet", model=model, keep=0.25, audio_keep="auto").audio_keep == 0.5
    counted = DuetConfig.preset("duet", model=model, tokens=9, grid=(12, 12), audio_keep="auto")
    assert counted.audio_keep == math.sqrt(9 / 36)
    assert DuetConfig.preset("duet", model=model, keep=0.25).audio_keep is None
    assert DuetConfig.preset("duet", model=model, keep=0.25, audio_keep=0.7).audio_keep == 0.7
    assert DuetConfig.preset("none", keep=0.25, audio_keep="auto") == DuetConfig()
    assert DuetConfig.preset("none", audio_keep=0.7) == DuetConfig(audio_keep=0.7)
    with pytest.raises(DuetError, match="audio_keep 'auto' goes by a share of the visual tokens: give keep="):
        DuetConfig.preset("visionzip", model=model, tokens=9, audio_keep="auto")


def test_a_config_without_sound_is_written_as_before() -> None:
    silent, heard = DuetConfig(dominant=9, drops=DROPS), DuetConfig(dominant=9, drops=DROPS, audio_keep=1)
    assert silent.to_dict()["version"] == 1 and "audio_keep" not in silent.to_dict()
    assert heard.to_dict() == silent.to_dict() | {"version": 2, "audio_keep": 1.0, "audio_guides": False}
    assert DuetConfig.from_dict(heard.to_dict()) == heard != silent
    assert DuetConfig(drops=[Drop(2, 0.0)], audio_keep=0.5).ranks and not DuetConfig(drops=[Drop(2, 0.0)]).ranks


@pytest.mark.parametrize("name", VALUES)
def test_audio_keep_is_a_share_or_one_sentence(name: str) -> None:
    try:
        assert 0 < DuetConfig(audio_keep=VALUES[name]).audio_keep <= 1 or VALUES[name] is None  # type: ignore[operator]
    except DuetError as error:
        one_sentence(error)
        assert "audio_keep" in str(error)
    except TypeError:
        assert VALUES[name] is None  # sound is text


def test_who_cannot_do_it_says_so() -> None:
    config = DuetConfig(audio_keep=0.5)
    llava, omni = zoo.build("llava"), zoo.build("qwen2_5_omni_thinker")
    refused: dict[str, Any] = {
        "audio_guides has no meaning for sound that is not compressed": lambda: DuetConfig(audio_guides=True),
        "audio_keep 0.5 is for models whose sound can be compressed, and a llava is none": lambda: duet_vlm.apply(
            llava, config
        ),
        "audio_keep is not possible in vLLM": lambda: check_fits(config, llava.config),
        "audio_keep 0.5 compresses sound, and duet serve takes none": lambda: choose(
            "transformers", SimpleNamespace(), config, adapter=False
        ),
        "audio_keep 0.5 compresses sound, and there is none: give seconds=": lambda: cost_report(
            omni.config, config, 4, grid=(8, 8)
        ),
        "models of type llava hear nothing": lambda: cost_report(llava.config, DuetConfig(), 4, seconds=3),
        "less than one audio token": lambda: cost_report(omni.config, config, 4, grid=(8, 8), seconds=0.01),
    }
    for sentence, call in refused.items():
        with pytest.raises(DuetError, match=sentence) as error:
            call()
        one_sentence(error)


def test_costs_count_sound_beside_the_image() -> None:
    model = zoo.build("qwen2_5_omni_thinker")
    config = DuetConfig(0.5, 0.1, drops=DROPS, audio_keep=0.6)
    with_sound = cost_report(model.config, config, 10, grid=(8, 8), seconds=4)
    schedule = AudioSchedule.of(config, zoo.LAYERS)
    assert schedule is not None
    # 400 frames of the spectrum, a token of four
    heard = schedule.tokens_per_layer(100, zoo.LAYERS)
    assert [row["audio_tokens"] for row in with_sound["layers"]] == heard
    assert with_sound["audio_tokens"] == 100 and with_sound["average_audio_tokens"] == sum(heard) / zoo.LAYERS
    silent = cost_report(model.config, DuetConfig(0.5, 0.1, drops=DROPS), 10, grid=(8, 8))
    width = silent["kv_bytes_before"] // zoo.LAYERS // (16 + 10)
    assert with_sound["kv_bytes_before"] == silent["kv_bytes_before"] + zoo.LAYERS * 100 * width
    assert with_sound["kv_bytes"] == silent["kv_bytes"] + sum(heard) * width
    # text by another name, where it is not compressed
    text = cost_report(model.config, DuetConfig(0.5, 0.1, drops=DROPS), 10, grid=(8, 8), seconds=4)
    longer = cost_report(model.config, DuetConfig(0.5, 0.1, drops=DROPS), 110, grid=(8, 8))
    assert (text["flops"], text["kv_bytes"]) == (longer["flops"], longer["kv_bytes"])
