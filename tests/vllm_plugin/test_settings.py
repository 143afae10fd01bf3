"""The settings in a model's config, in full and in short, and what is refused of them before anything starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Qwen2_5_VLConfig

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.demo.model import config as demo_config
from duet_vlm.vllm.settings import check_fits, choose, read

LLAVA = "LlavaForConditionalGeneration"


def given(**duet: Any) -> Any:
    config = demo_config()
    config.duet = duet
    return config


class ModelConfig(SimpleNamespace):
    """As much of vLLM's as is changed."""

    def get_model_arch_config(self) -> list[str]:
        return self.hf_config.architectures


def test_the_full_form_is_what_a_saved_model_has() -> None:
    config = DuetConfig(dominant=60, contextual=4, drops=[Drop(6, 0.5)])
    assert read(given(**config.to_dict())).config == config


@pytest.mark.parametrize("budget", [{"tokens": 64}, {"keep": 0.25}])
def test_the_short_form_is_a_preset(budget: dict[str, float]) -> None:
    expected = DuetConfig.preset("duet", model=demo_config(), query="all", **budget)
    served = read(given(preset="duet", query="all", kv_groups=True, **budget))
    assert (served.config, served.kv_groups) == (expected, True)


def test_a_model_is_served_by_our_class_with_its_settings_in_full() -> None:
    model_config = ModelConfig(hf_config=given(preset="duet", keep=0.33, kv_groups=True), model_arch_config=None)
    choose(model_config, LLAVA)
    expected = DuetConfig.preset("duet", model=demo_config(), keep=0.33)
    assert model_config.hf_config.duet == expected.to_dict() | {"kv_groups": True}
    assert model_config.hf_config.architectures == model_config.model_arch_config == [f"Duet{LLAVA}"]


@pytest.mark.parametrize(
    ("duet", "message"),
    [
        ({"tokens": 64}, "has a budget and no preset"),
        ({"preset": "duet"}, "there is no budget"),
        ({"preset": "duett", "keep": 0.3}, "method 'duett' is unknown"),
        ({"dominnt": 3}, "setting 'dominnt' is unknown"),
        ({"kv_groups": 1}, "kv_groups 1 must be true or false"),
        ({"preset": "downsample", "keep": 0.3}, "downsample is not possible in vLLM"),
        ({"dominant": 30, "contextual": 4, "proportional": True}, "proportional is not possible in vLLM"),
        ({"preset": "scope", "coverage": 0.9}, r"coverage 0\.9 is not possible in vLLM"),
        ({"dominant": 30, "history": 0.5}, r"history 0\.5 is not possible in vLLM"),
        ({"dominant": 30, "positions": "keep"}, "positions 'keep' is not possible with stage 1 for llava in vLLM"),
        ({"dominant": 300}, "is more than the 196 visual tokens"),
        ({"drops": [{"layer": 12, "keep": 0.5}]}, "drop layer 12 is not possible: this model has 12 decoder layers"),
    ],
)
def test_settings_that_cannot_be(duet: dict[str, Any], message: str) -> None:
    config = given(**duet)
    with pytest.raises(DuetError, match=message):
        choose(ModelConfig(hf_config=config), LLAVA)
    assert config.duet == duet


@pytest.mark.parametrize("merging", ["evs", "vidcom2", "flashvid"])
def test_methods_that_are_shown_whole_videos_are_refused_where_there_are_videos(merging: str) -> None:
    config = DuetConfig(dominant=0.4, merging=merging)
    with pytest.raises(DuetError, match=f"merging '{merging}' is not possible for qwen2_5_vl in vLLM"):
        check_fits(config, Qwen2_5_VLConfig())
    check_fits(config, demo_config())


def test_what_is_no_mapping_is_refused() -> None:
    config = demo_config()
    config.duet = "duet"
    with pytest.raises(DuetError, match="duet 'duet' in the model's config is no mapping"):
        read(config)


def test_a_tower_that_is_not_known_is_refused() -> None:
    config = demo_config()
    config.vision_config.model_type = "pixtral"
    with pytest.raises(DuetError, match="a LLaVA with a pixtral is not compressed in vLLM"):
        check_fits(DuetConfig(drops=[Drop(6, 0.5)]), config)


@pytest.mark.parametrize("architecture", ["LlavaNextForConditionalGeneration", "Gemma3ForConditionalGeneration"])
def test_families_without_a_class_are_refused(architecture: str) -> None:
    with pytest.raises(DuetError, match=f"{architecture} is not compressed in vLLM"):
        choose(ModelConfig(hf_config=given(preset="duet", keep=0.3)), architecture)
