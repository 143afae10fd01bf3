"""Budgets: the published rows exactly, any other within half a token, on any depth and any number of visual tokens."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from duet_vlm import Drop, DuetConfig
from duet_vlm.budget import DecoderShape, keep_count, stage1_counts, tokens_per_layer


def llava(side: int = 24, layers: int = 32) -> LlavaConfig:
    vision = CLIPVisionConfig(image_size=14 * side, patch_size=14)
    return LlavaConfig(vision_config=vision, text_config=LlamaConfig(num_hidden_layers=layers))


def average(config: DuetConfig, visual_tokens: int, layers: int) -> float:
    """Layer by layer, from METHOD.md."""
    entering = visual_tokens if config.dominant is None else int(config.dominant) + int(config.contextual)
    total = 0
    for layer in range(layers):
        ratios = [d.keep for d in config.drops if d.layer <= layer]
        total += int(ratios[-1] * entering + 1e-6) if ratios else entering
    return total / layers


@pytest.mark.parametrize(("tokens", "k1", "k2"), [(192, 300, 7), (128, 170, 35), (64, 85, 17)])
def test_published_duet_rows(tokens: int, k1: int, k2: int) -> None:
    config = DuetConfig.preset("duet", model=llava(), tokens=tokens)
    assert (config.dominant, config.contextual, config.cluster_width) == (k1, k2, 4)
    assert config.drops == [Drop(16, 0.5), Drop(24, 0.0)]
    assert config.query == "salient" and config.positions == "auto"
    assert DuetConfig.preset("duet", model=llava(), keep=tokens / 576) == config


@pytest.mark.parametrize(("tokens", "k1", "k2"), [(192, 162, 30), (128, 108, 20), (64, 54, 10)])
def test_published_visionzip_rows(tokens: int, k1: int, k2: int) -> None:
    config = DuetConfig.preset("visionzip", model=llava(), tokens=tokens)
    assert (config.dominant, config.contextual, config.merging, config.drops) == (k1, k2, "visionzip", [])


def test_published_pyramiddrop_and_fastv() -> None:
    config = DuetConfig.preset("pyramiddrop", model=llava(), tokens=270)
    assert [d.layer for d in config.drops] == [8, 16, 24] and config.query == "last" and config.dominant is None
    assert [keep_count(d.keep, 576) for d in config.drops] == [288, 144, 72]
    config = DuetConfig.preset("fastv", model=llava(), tokens=306)
    assert config.drops == [Drop(2, 0.5, rank_at=1)] and config.query == "last"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["duet", "visionzip", "pyramiddrop", "fastv"]),
    st.integers(4, 32),
    st.integers(2, 80),
    st.floats(0.02, 1.0),
)
def test_budget_is_met_within_half_a_token_or_refused(name: str, side: int, layers: int, keep: float) -> None:
    visual_tokens, model = side * side, llava(side, layers)
    try:
        config = DuetConfig.preset(name, model=model, keep=keep)
    except ValueError as error:
        assert "cannot meet a budget" in str(error)
        least, most = reach(name, visual_tokens, layers)
        assert not least <= keep * visual_tokens <= most
        return
    assert abs(average(config, visual_tokens, layers) - keep * visual_tokens) <= 0.5 + 1e-6
    counts = tokens_per_layer(config, visual_tokens, layers)
    assert sum(counts) / layers == average(config, visual_tokens, layers)


def reach(name: str, n: int, layers: int) -> tuple[float, float]:
    """Budgets that certainly can be met, in closed form."""
    if name == "duet":
        halfway, late = layers // 2, 3 * layers // 4
        share = halfway + (late - halfway) / 2 if late > halfway else late
        return 4, share * n / layers - 1
    if name == "visionzip":
        return 2, n
    if name == "pyramiddrop":
        return max(1, layers // 4) * n / layers + 1 if layers >= 4 else n, n
    return min(2, layers - 1) * n / layers, n


def test_fractions_round_down_and_contextual_is_at_least_one() -> None:
    assert stage1_counts(DuetConfig(dominant=0.65, contextual=0.05), 64) == (41, 3)
    assert stage1_counts(DuetConfig(dominant=0.5, contextual=0.001), 64) == (32, 1)
    assert stage1_counts(DuetConfig(dominant=540, contextual=100), 64, dynamic=True) == (63, 1)
    assert keep_count(0.29, 100) == 29


def test_costs_of_llava_1_5_7b() -> None:
    shape = DecoderShape.of(LlamaConfig(vocab_size=32064))
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    assert shape.layer_flops(640) == 2 * 640 * layer + 2 * 640**2 * 4096
    assert shape.layer_kv_bytes(640) == 640 * 2 * 4096 * 2
    assert shape.prefill_flops([640] * 32) == 32 * shape.layer_flops(640) + 2 * 4096 * 32064
    assert DecoderShape.of(tiny.build().config, bytes_per_value=4).layer_kv_bytes(10) == 10 * 2 * 2 * 8 * 4
