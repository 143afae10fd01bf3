"""In training, `lm_head` and the loss run where a label is predicted, with the stock loss and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from exactness import close
from gradients import IGNORED, ROWS, compare, gradients, labelled
from matrix import apply
from torch import Tensor

import duet_vlm
from duet_vlm import DuetConfig


def watch(model: Any) -> list[int]:
    """How many places `lm_head` was given in each call."""
    seen: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda m, args: seen.append(args[0].numel() // args[0].shape[-1]))
    return seen


def predicting(labels: Tensor) -> Tensor:
    """(B, S) bool: the next token has a label."""
    return torch.cat([labels[:, 1:] != IGNORED, torch.zeros_like(labels[:, :1], dtype=torch.bool)], 1)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("share", [False, True], ids=["mean", "num_items_in_batch"])
@pytest.mark.parametrize("setting", ["nothing to do", "both stages"])
def test_same_loss_and_gradients_as_with_all_logits(family: str, share: bool, setting: str) -> None:
    model, batch = tiny.build(family).train(), tiny.inputs(family, ROWS, padding="right")
    labels = labelled(batch)
    given: dict[str, Any] = {"num_items_in_batch": torch.tensor(30)} if share else {}
    handle = duet_vlm.apply(model, DuetConfig()) if setting == "nothing to do" else apply(model, family)
    seen = watch(model)
    everything = model(**batch, labels=labels, **given, logits_to_keep=0)  # the caller's choice stands
    expected = gradients(model, everything.loss)
    fewer = model(**batch, labels=labels, **given)
    close(fewer.loss.detach(), everything.loss.detach())
    where = predicting(labels)
    assert seen == [labels.numel(), int(where.sum()) + 1]
    assert fewer.logits.shape == everything.logits.shape
    close(fewer.logits[where].detach(), everything.logits[where].detach())
    assert fewer.logits.isnan().all(-1).sum() == labels.numel() - where.sum() - 1
    compare(gradients(model, fewer.loss), expected)
    handle.remove()
    assert model(**batch, labels=labels).logits.isfinite().all()  # stock again


def test_a_loss_of_the_caller_on_the_logits_that_are_there() -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="right")
    labels = labelled(batch)
    apply(model)
    out = model(**batch, labels=labels)
    expected = gradients(model, out.loss)
    out = model(**batch, labels=labels)
    own = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    close(own.detach(), out.loss.detach())
    compare(gradients(model, own), expected)


def test_flat_logits_where_asked_for() -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="right")
    labels = labelled(batch)
    with duet_vlm.apply(model, DuetConfig(dominant=9, contextual=2), full_logits=False):
        logits = model(**batch, labels=labels).logits
    assert logits.shape == (int(predicting(labels).sum()) + 1, 99)
    with duet_vlm.apply(model, DuetConfig(dominant=9, contextual=2)):
        full = model(**batch, labels=labels, return_dict=False)[1]
    where = predicting(labels)
    where[0, -1] = True
    assert torch.equal(full[where], logits)


@pytest.mark.parametrize("why", ["evaluation", "no gradient", "another forward", "TRL's head"])
def test_all_logits_elsewhere(why: str) -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="right")
    labels, given = labelled(batch), {}
    if why == "evaluation":
        model.eval()
    if why == "another forward":

        class Own(type(model)):  # type: ignore[misc]
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return super().forward(*args, **kwargs)

        model.__class__ = Own
    if why == "TRL's head":
        given["fused_lm_head"] = True
    apply(model)
    seen = watch(model)
    with torch.set_grad_enabled(why != "no gradient"):
        out = model(**batch, labels=labels, **given)
    assert seen == [labels.numel()] and out.logits.isfinite().all()


def test_no_label_at_all_runs_the_head_all_the_same() -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS[:2], padding="right")
    apply(model)
    seen = watch(model)
    labels = torch.full_like(batch["input_ids"], IGNORED)
    loss = model(**batch, labels=labels, num_items_in_batch=torch.tensor(7)).loss
    loss.backward()
    assert seen == [1] and loss == 0
    assert model.lm_head.weight.grad is not None and not model.lm_head.weight.grad.any()
