"""Training in every family: checkpointing changes nothing, wherever the backward pass runs; blank images."""

from __future__ import annotations

import threading

import pytest
import torch
import zoo
from gradients import compare

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.engine import distributed


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_checkpointing_with_the_backward_pass_in_another_thread(family: str) -> None:
    """On a GPU the backward pass, and with it what checkpointing computes again, has a thread of its own."""
    batch = zoo.inputs(family, ((5, "i", 9), (3, "i", 6)), padding="right")
    labels = torch.full_like(batch["input_ids"], -100)
    last = batch["attention_mask"].sum(1) - 1
    for row, place in enumerate(last):
        labels[row, place - 2 : place + 1] = batch["input_ids"][row, place - 2 : place + 1]
    dominant, contextual = zoo.FAMILIES[family].stage_1
    config, found = DuetConfig(dominant, contextual, drops=[Drop(2, 0.5)], query="all"), []
    for checkpointing in (False, True):
        model, failures = zoo.build(family).train(), []
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        with duet_vlm.apply(model, config):
            loss = model(**batch, labels=labels).loss

            def backward(loss: torch.Tensor = loss, failures: list[Exception] = failures) -> None:
                try:
                    loss.backward()
                except Exception as error:
                    failures.append(error)

            thread = threading.Thread(target=backward)
            thread.start()
            thread.join()
        assert not failures
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())})
    assert any("vision" in n or "visual" in n for n in found[0])
    compare(found[1], found[0])


@pytest.mark.parametrize("family", [name for name in zoo.SEEING if zoo.FAMILIES[name].image is not None])
def test_a_blank_image_reaches_tower_and_projector(family: str) -> None:
    model = zoo.build(family).train()
    dominant, contextual = zoo.FAMILIES[family].stage_1
    with duet_vlm.apply(model, DuetConfig(dominant, contextual, merging=zoo.FAMILIES[family].merging)):
        nothing = distributed.encode_blank(model.base_model)
    nothing.backward()
    assert nothing == 0
    given = [n for n, p in model.named_parameters() if p.grad is not None]
    assert any(part in n for n in given for part in ("vision", "visual", "image_tower"))
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)
