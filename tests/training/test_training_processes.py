"""Two processes over gloo train as one does on both batches, though one of the two sees text alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_engine import BOTH
from torch import Tensor

import duet_vlm
from duet_vlm import DuetConfig

# step -> process -> rows; ragged, and in each step one process has no image
STEPS = (
    (((5, 12), (2, 3, 9)), ((14,), (10,))),
    (((9,), (12,)), ((4, 8), (3, 15))),
)
PATIENCE = 400  # seconds; ten are enough, but a machine may be busy
CASES = [("ddp", False), ("ddp", True), ("fsdp2, applied before", True), ("fsdp2, applied after", False)]


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


def apply(model: Any) -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(**BOTH), tokenizer=tiny.Words())


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


def whole(value: Any) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def work(rank: int, port: int, folder: str) -> None:
    """One process: every case, results of process 0 into a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    parts, counts = steps()
    mine, results = [[both[rank]] for both in parts], {}
    for kind, checkpointing in CASES:
        model = fresh(checkpointing)
        if kind != "fsdp2, applied after":
            apply(model)
        if kind == "ddp":
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
        else:
            mesh = init_device_mesh("cpu", (2,))
            for layer in [*model.model.vision_tower.encoder.layers, *model.model.language_model.layers]:
                fully_shard(layer, mesh=mesh)
            wrapped = fully_shard(model, mesh=mesh)
        if kind == "fsdp2, applied after":
            apply(model)
        losses = train(wrapped, mine, counts, share=2)
        weights = {name: whole(p).detach().clone() for name, p in model.named_parameters()}
        results[kind, checkpointing] = losses, weights
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    folder = tmp_path_factory.mktemp("processes")
    context = mp.spawn(work, args=(free_port(), str(folder)), nprocs=2, join=False)
    try:
        deadline = time.monotonic() + PATIENCE
        while not context.join(timeout=1):  # also False when one of two has ended
            if time.monotonic() > deadline:
                pytest.fail("the two processes wait for each other")
        yield torch.load(folder / "results.pt", weights_only=True)
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()


@pytest.fixture(scope="module")
def alone() -> tuple[list[Tensor], dict[str, Tensor]]:
    """One process on both batches of every step."""
    parts, counts = steps()
    model = fresh(checkpointing=False)
    apply(model)
    losses = train(model, parts, counts, share=1)
    return losses, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("kind", "checkpointing"), CASES)
def test_two_processes_train_as_one(results: Any, alone: Any, kind: str, checkpointing: bool) -> None:
    losses, weights = results[kind, checkpointing]
    torch.testing.assert_close(torch.stack(losses), torch.stack(alone[0]), atol=2e-5, rtol=2e-5)
    assert weights.keys() == alone[1].keys()
    start = dict(fresh(False).named_parameters())
    moved = [name for name, weight in weights.items() if not torch.equal(weight, start[name])]
    assert any("vision_tower" in name for name in moved) and any("projector" in name for name in moved)
    for name, weight in alone[1].items():
        torch.testing.assert_close(weights[name], weight, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
