"""Steps of training that two processes share, and one process can do alone."""

from __future__ import annotations

import socket
from typing import Any

import tiny
import torch
import torch.distributed as dist
from torch import Tensor

# step -> process -> rows; ragged, and in each step one process has no image
STEPS = (
    (((5, 12), (2, 3, 9)), ((14,), (10,))),
    (((9,), (12,)), ((4, 8), (3, 15))),
)


def batch_of(rows: Any, seed: int) -> dict[str, Any]:
    """Rows with the last three tokens for an answer; every first row with an image has none."""
    batch = tiny.inputs(rows=rows, padding="right", seed=seed)
    real, labels = batch["attention_mask"].bool(), torch.full_like(batch["input_ids"], -100)
    for row, ids in enumerate(batch["input_ids"]):
        if row != 0 or len(rows[0]) == 1:
            places = real[row].nonzero()[-3:, 0]
            labels[row, places] = ids[places]
    return batch | {"labels": labels}


def fresh(checkpointing: bool) -> Any:
    model = tiny.build().train()
    # a stock model uses neither: the features are those of the layer before
    for unused in (model.model.vision_tower.encoder.layers[-1], model.model.vision_tower.post_layernorm):
        unused.requires_grad_(False)
    if checkpointing:
        model.activation_checkpointing_enable()
    return model


def train(model: Any, parts: list[list[dict[str, Any]]], counts: list[Tensor], share: int) -> list[Tensor]:
    """Steps of SGD on `parts` of batches, with the losses as the Trainer scales them; returns them."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    for batches, count in zip(parts, counts, strict=True):
        total = torch.zeros(())
        for batch in batches:
            loss = model(**batch, num_items_in_batch=count).loss * share
            loss.backward()
            total += loss.detach()
        if share > 1:
            dist.all_reduce(total, op=dist.ReduceOp.SUM)
            total /= share
        losses.append(total)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def steps() -> tuple[list[list[dict[str, Any]]], list[Tensor]]:
    parts = [[batch_of(rows, 10 * i + j) for j, rows in enumerate(both)] for i, both in enumerate(STEPS)]
    return parts, [torch.stack([(b["labels"][:, 1:] != -100).sum() for b in both]).sum() for both in parts]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
