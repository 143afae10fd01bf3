"""Two processes over gloo train as one does on both batches, though one of the two sees text alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from matrix import apply
from torch import Tensor
from two_processes import free_port, fresh, steps, train

PATIENCE = 400  # seconds; ten are enough, but a machine may be busy
CASES = [("ddp", False), ("ddp", True), ("fsdp2, applied before", True), ("fsdp2, applied after", False)]


def whole(value: Any) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


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
