"""Loss and gradients as the masking oracle has them, on prompts with answers and without."""

from __future__ import annotations

from typing import Any

import torch
from exactness import kept
from oracle import masked_prefill
from torch import Tensor
from torch.nn.functional import cross_entropy

import duet_vlm

IGNORED = -100
# question and answer around an image; two images; a question without an answer; text alone
ROWS = ((5, 12), (2, 3, 9), (4, 8), (14,))
UNANSWERED = 2
Gradients = dict[str, Tensor]


def labelled(batch: dict[str, Any], answer: int = 4) -> Tensor:
    """The last tokens of every row are its answer, but one row has none."""
    real = batch["attention_mask"].bool()
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for row in range(len(labels)):
        if row != UNANSWERED:
            places = real[row].nonzero()[-answer:, 0]
            labels[row, places] = batch["input_ids"][row, places]
    return labels


def gradients(model: Any, loss: Tensor) -> Gradients:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def compare(got: Gradients, expected: Gradients) -> None:
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def masked_gradients(
    model: Any, handle: duet_vlm.Duet, batch: dict[str, Any], labels: Tensor
) -> tuple[Tensor, Gradients]:
    """What the stock layers give on the full sequence, with what was dropped hidden as keys."""
    model(**batch, labels=labels)
    alive = kept(handle, batch)
    told, renumber = batch | {"duet_labels": labels}, handle.renumbers
    hidden, there = masked_prefill.__wrapped__(model, told, alive, renumber)  # with gradients
    following = labels[:, 1:]
    assert there[:, :-1][following != IGNORED].all()
    logits = model.lm_head(hidden)[:, :-1]
    loss = cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=IGNORED)
    return loss.detach(), gradients(model, loss)
