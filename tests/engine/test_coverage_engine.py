"""`coverage` in the engine: images of a batch keep different numbers, as they would alone and by a fixed count."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from hostile import one_sentence
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.demo.model import load

ROWS: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6), (12,))
CONFIG = DuetConfig(dominant=1.0, merging="scope", coverage=0.7, coverage_floor=2, drops=[Drop(2, 0.5), Drop(4, 0.25)])


def forward(model: Any, config: DuetConfig, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
    with torch.no_grad(), duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle:
        return model(**inputs, logits_to_keep=1).logits, handle.trace


@pytest.mark.parametrize("family", ["llava", "vipllava", "llava_next", "qwen2_5_vl", "internvl"])
def test_a_ragged_batch_equals_its_rows_and_fixed_counts(family: str) -> None:
    model = zoo.build(family)
    both, trace = forward(model, CONFIG, zoo.inputs(family, ROWS))
    counts = [len(image.dominant) for image in trace.images]
    assert len(set(counts)) > 1 or family in ("llava_next", "internvl")
    for row in range(2):
        logits, own = forward(model, CONFIG, zoo.inputs(family, ROWS[row : row + 1], first=row))
        assert own.samples[0].tokens_per_layer == trace.samples[row].tokens_per_layer
        torch.testing.assert_close(logits[0], both[row], atol=2e-5, rtol=1e-4)
    if family in ("llava", "vipllava", "qwen2_5_vl"):  # an image is one part there
        first = zoo.inputs(family, ROWS[:1])
        cls = 1 if family == "llava" else 0
        fixed = DuetConfig(dominant=counts[0] + cls, merging="scope", drops=CONFIG.drops)
        logits, own = forward(model, fixed, first)
        assert own.images[0].dominant == trace.images[0].dominant
        torch.testing.assert_close(logits[0], both[0], atol=2e-5, rtol=1e-4)
        entering = counts[0] + cls
        layers = trace.samples[0].tokens_per_layer
        assert layers[0] == entering and layers[2] == entering // 2 and layers[4] == entering // 4


def test_presets_of_it_and_what_they_refuse() -> None:
    model, _ = load()
    config = DuetConfig.preset("scope+duet", model=model, coverage=0.9, coverage_floor=8)
    assert (config.dominant, config.coverage, config.coverage_floor, config.merging) == (1.0, 0.9, 8, "scope")
    assert config.drops == DuetConfig.preset("scope+duet", model=model, keep=0.2).drops
    assert DuetConfig.preset("divprune", model=model, coverage=0.5, dominant=40).dominant == 40
    for name, more, told in (
        ("scope", {"keep": 0.2}, r"keep 0\.2 and coverage 0\.9 are both a budget"),
        ("scope", {"tokens": 20}, r"tokens 20 and coverage 0\.9 are both a budget"),
        ("duet", {}, r"coverage 0\.9 is for methods that choose one token after another"),
        ("pyramiddrop", {}, "put one before it, as in scope.pyramiddrop"),
        ("scope", {"audio_keep": "auto"}, "which coverage does not know"),
    ):
        with pytest.raises(DuetError, match=told) as error:
            DuetConfig.preset(name, model=model, coverage=0.9, **more)
        one_sentence(error)
