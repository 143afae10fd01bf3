"""Data-parallel training with one-thread processes and one gloo all-reduce per step.

On CPU cores that other programs use as well, this loses far less time than one process with several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This process's place among the workers of one run, and the device it computes on."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """True in the process that writes logs and checkpoints."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the workers."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average(self, values: Tensor) -> Tensor:
        """Mean of a small tensor over the workers."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values


def _entry(rank: int, function: Callable[..., None], count: int, store: str, arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    try:
        function(Workers(rank, count), *arguments)
    finally:
        dist.destroy_process_group()


def launch(function: Callable[..., None], count: int, folder: Path, *arguments: object) -> None:
    """Run `function(workers, *arguments)` in `count` CPU processes; in this one when count is 1 or there is a GPU."""
    if count == 1 or torch.cuda.is_available():
        function(Workers(device="cuda" if torch.cuda.is_available() else "cpu"), *arguments)
        return
    store = folder / "rendezvous"
    store.unlink(missing_ok=True)
    torch.multiprocessing.spawn(_entry, (function, count, str(store.absolute()), arguments), nprocs=count)  # type: ignore[attr-defined]
    store.unlink(missing_ok=True)
