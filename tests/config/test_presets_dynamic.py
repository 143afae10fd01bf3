"""Budgets of images of every size: fractions, or counts for an image of a given grid; what a layer costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from transformers import LlamaConfig, LlavaConfig, Qwen2_5_VLConfig

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.budget import keep_count, stage1_counts, tokens_per_layer
from duet_vlm.config.decoder_shape import DecoderShape
from duet_vlm.config.methods import names

OTHERS = ("none", "downsample", "pixelprune")  # no budget, or none for images of any size


class TestQwen:
    """Images of any size: fractions, or counts for an image of a given grid."""

    def model(self, layers: int = 28) -> Qwen2_5_VLConfig:
        return Qwen2_5_VLConfig(text_config=dict(num_hidden_layers=layers, layer_types=["full_attention"] * layers))

    def test_published_rows(self) -> None:
        config = DuetConfig.preset("duet", model=self.model(), tokens=440)
        assert (config.dominant, config.contextual, config.drops) == (540, 100, (Drop(14, 0.5), Drop(21, 0.25)))
        assert sum(tokens_per_layer(config, 5000, 28, dynamic=True)) / 28 == 440
        config = DuetConfig.preset("duet", model=self.model(), keep=0.4375)
        assert (config.dominant, config.contextual) == (0.65, 0.05)
        assert config.drops == (Drop(7, 0.75), Drop(14, 0.5), Drop(21, 0.25))

    @pytest.mark.parametrize("name", [*(n for n in names() if n not in OTHERS), "prumerge+sparsevlm"])
    @pytest.mark.parametrize("keep", [0.3, 0.11])
    def test_fractions_meet_the_budget_on_every_image(self, name: str, keep: float) -> None:
        config = DuetConfig.preset(name, model=self.model(20), keep=keep)
        assert config.dominant is None or isinstance(config.dominant, float)
        for n in (100, 391, 1296):
            counts = tokens_per_layer(config, n, 20, dynamic=True)
            # what is floored: two counts of stage 1, and a count at every drop
            assert -4 <= sum(counts) / 20 - keep * n <= 1

    def test_counts_of_a_grid(self) -> None:
        config = DuetConfig.preset("visionzip", model=self.model(), tokens=80, grid=(1, 36, 36))
        assert config.dominant + config.contextual == 80  # type: ignore[operator]
        half = DuetConfig.preset("visionzip", model=self.model(), keep=0.5, grid=(1, 36, 36))
        assert half.dominant + half.contextual == 162  # type: ignore[operator]
        assert DuetConfig.preset("visionzip", model=self.model(), tokens=80) == config
        with pytest.raises(ValueError, match="fastv keeps fractions of an image's tokens: give the budget as keep="):
            DuetConfig.preset("fastv", model=self.model(), tokens=80)
        with pytest.raises(ValueError, match=r"duet cannot meet a budget of 0\.9 of the tokens here"):
            DuetConfig.preset("duet", model=self.model(), keep=0.9)

    def test_pixelprune_takes_no_budget_and_stage_2_behind_it_meets_one(self) -> None:
        model = self.model()
        assert DuetConfig.preset("pixelprune", model=model) == DuetConfig(pixelprune=0)
        assert DuetConfig.preset("pixelprune+none", model=model, pixelprune=2) == DuetConfig(pixelprune=2)
        for second in ("duet", "fastv", "tops"):
            alone = DuetConfig.preset(f"none+{second}", model=model, keep=0.4)
            assert DuetConfig.preset(f"pixelprune+{second}", model=model, keep=0.4) == replace(alone, pixelprune=0)
        both = DuetConfig.preset("duet", model=model, keep=0.3, pixelprune=0)
        assert both == replace(DuetConfig.preset("duet", model=model, keep=0.3), pixelprune=0)
        for name in ("pixelprune", "pixelprune+none"):
            with pytest.raises(DuetError, match="'pixelprune' keeps as much as the picture does not repeat: leave out"):
                DuetConfig.preset(name, model=model, keep=0.3)
        with pytest.raises(DuetError, match="there is no budget"):
            DuetConfig.preset("pixelprune+duet", model=model)
        with pytest.raises(DuetError, match="pixelprune is not possible for llava: it is for towers that take any"):
            DuetConfig.preset("pixelprune", model=LlavaConfig())

    def test_downsample_is_for_clip(self) -> None:
        with pytest.raises(ValueError, match="downsample is not possible for qwen2_5_vl: it is for CLIP") as error:
            DuetConfig.preset("downsample", model=self.model(), keep=0.3)
        assert str(error.value).endswith(".") and len(str(error.value)) < 260


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
