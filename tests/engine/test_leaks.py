"""Nothing of a call lives after it, and a dropped model is freed at once: every family."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import generate
from matrix import apply, family, rows_of

import duet_vlm


def towers(model: Any) -> list[Any]:
    names = ("vision_tower", "image_tower", "video_tower", "visual", "vision_model", "audio_tower")
    found = [getattr(model.base_model, name, None) for name in names]
    # the unified Gemma 4 has none: its patches are projected
    return [tower for tower in found if tower is not None] or [model.base_model.embed_vision]


def watched(model: Any) -> tuple[list[weakref.ref[Any]], list[Any]]:
    """Weak references to what the towers give from now on, and the hooks that take them."""
    seen: list[weakref.ref[Any]] = []
    hooks = [
        tower.register_forward_hook(lambda m, a, out: seen.append(weakref.ref(out.get("last_hidden_state", out[0]))))
        for tower in towers(model)
    ]
    return seen, hooks


@family
@torch.no_grad()
def test_what_a_tower_gives_does_not_outlive_the_call(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    with apply(model, family):
        seen, hooks = watched(model)
        generate(model, batch, 2)
        assert seen and not [one for one in seen if one() is not None]
        for hook in hooks:
            hook.remove()


@family
@torch.no_grad()
def test_a_call_that_failed_leaves_nothing_and_no_trace(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    with apply(model, family) as handle:
        generate(model, batch, 1)
        seen, hooks = watched(model)
        hooks.append(zoo.decoder(model).layers[3].register_forward_pre_hook(fail))
        with pytest.raises(RuntimeError, match="broken"):
            generate(model, batch, 1)
        for hook in hooks:
            hook.remove()
        gc.collect()  # of the trace of the exception
        assert seen and not [one for one in seen if one() is not None] and handle.trace is None
        generate(model, batch, 1)
        assert handle.trace is not None
        model(input_ids=torch.tensor([[5, 6, 7]]))
        assert handle.trace is None  # of a prompt without an image


@family
@torch.no_grad()
def test_a_dropped_model_is_freed_without_the_collector(family: str) -> None:
    model = zoo.build(family)
    handle, alive = apply(model, family), weakref.ref(model)
    generate(model, zoo.inputs(family, rows_of(family)), 2)
    gc.collect()
    gc.disable()
    try:
        del model, handle
        assert alive() is None
    finally:
        gc.enable()


def test_a_handle_keeps_its_model_and_a_copy_has_a_handle_of_its_own(tmp_path: Any) -> None:
    import copy

    handle = duet_vlm.apply(tiny.build(), duet_vlm.DuetConfig(dominant=9), tokenizer=tiny.Words())
    assert handle.model.config.duet["dominant"] == 9
    clone = copy.deepcopy(handle.model)
    other = duet_vlm.handle_of(clone)
    assert other is not None and other.engine is not handle.engine
    other.remove()
    assert handle.applied and duet_vlm.handle_of(clone) is None
    torch.save(handle.model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    again = duet_vlm.handle_of(loaded)
    assert again is not None and again.config == handle.config and again.trace is None
    again.remove()
