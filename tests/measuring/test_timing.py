"""Clocks of the benchmarks, on steps that are counted."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import zoo
from matrix import settings

import duet_vlm
from duet_vlm.families import cls_tower, fixed, frames, llava_next
from duet_vlm.measuring.timing import Clock, time_in_hooks
from duet_vlm.stage1 import merge


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl", "llava_onevision"])
def test_time_of_stage_1_is_without_the_towers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which a layer of the tower takes 1,000 and what merging computes takes 1."""

    class Steps(Clock):
        at = 0.0

        def now(self) -> float:
            return self.at

    def step(n: float) -> None:
        clock.at += n

    def merged(*args: Any, **kwargs: Any) -> Any:
        step(1)
        calls.append(1)
        return merge(*args, **kwargs)

    clock, calls = Steps("cpu"), list[int]()
    model, batch = zoo.build(family), zoo.inputs(family, ((5, "i", 9),))
    tower = next(part for name, part in model.model.named_children() if name.startswith(("vision", "visual")))
    tower.register_forward_hook(lambda *_: step(1000))
    for room in (cls_tower, fixed, frames, llava_next):
        monkeypatch.setattr(room, "merge", merged)
    with duet_vlm.apply(model, settings(family), tokenizer=tiny.Words()), time_in_hooks(model.model, clock) as spent:
        model.model.get_image_features(**{k: v for k, v in batch.items() if k.startswith(("pixel", "image_"))})
    assert sum(spent) == len(calls) > 0 and clock.at == 1000 + len(calls)
