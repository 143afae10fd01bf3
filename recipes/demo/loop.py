"""One training loop for all stages: step-based schedule, resumable, the same numbers with and without interruption.

Every step draws its scenes from a generator seeded by (seed, stage, step, rank) and nothing else is random, so a run
depends on its settings and the number of processes only.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recipes.demo.distributed import Workers

TRAINING_SEED = 20_260


@dataclass(frozen=True)
class Stage:
    """A stage's name, length and peak learning rates (one per parameter group).

    The rates follow a cosine over `horizon` steps, or the stage's own: a longer horizon ends it while rates are high.
    """

    name: str
    number: int
    steps: int
    rates: tuple[float, ...]
    warmup: int = 60
    floor: float = 0.02
    horizon: int | None = None
    log_every: int = 25
    save_every: int = 200


def generator(stage: Stage, step: int, workers: Workers) -> np.random.Generator:
    """The source of everything random in one step of one worker."""
    return np.random.default_rng((TRAINING_SEED, stage.number, step, workers.rank))


def _rate_factor(stage: Stage, step: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / (stage.horizon or stage.steps)))
    return min(1.0, (step + 1) / stage.warmup) * max(stage.floor, cosine)


def train(
    stage: Stage,
    modules: nn.Module,
    groups: list[list[nn.Parameter]],
    step_losses: Callable[[int], tuple[Tensor, dict[str, float]]],
    folder: Path,
    workers: Workers,
    resume: bool,
    report: Callable[[Stage, int, str | None], None],
) -> None:
    """Minimise the loss that `step_losses(step)` returns, beside numbers for the log.

    Writes `<folder>/<stage>.pt` (weights, optimiser, step, seconds) every `save_every` steps and at the end, and a line
    of `<folder>/<stage>.jsonl` every `log_every` steps.  With `resume`, goes on from the last checkpoint.
    """
    parameters = [p for group in groups for p in group]
    optimizer = torch.optim.AdamW(
        [{"params": group, "lr": 0.0} for group in groups], betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    checkpoint, log = folder / f"{stage.name}.pt", folder / f"{stage.name}.jsonl"
    start, seconds = 0, 0.0
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=workers.device, weights_only=True)
        modules.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        start, seconds = saved["step"], saved["seconds"]
    elif workers.first:
        log.unlink(missing_ok=True)
    began, window, sums = time.time() - seconds, (start, time.time()), dict[str, tuple[float, int]]()
    for step in range(start, stage.steps):
        for group, rate in zip(optimizer.param_groups, stage.rates, strict=True):
            group["lr"] = rate * _rate_factor(stage, step)
        loss, numbers = step_losses(step)
        loss.backward()
        workers.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in numbers.items():
            if not math.isnan(value):
                total, n = sums.get(name, (0.0, 0))
                sums[name] = total + value, n + 1
        done = step + 1
        text = None
        if workers.first and (done % stage.log_every == 0 or done == stage.steps):
            now = time.time()
            line = {"step": done, "minutes": round((now - began) / 60, 2)}
            line["seconds_per_step"] = round((now - window[1]) / (done - window[0]), 3)
            line |= {name: round(total / n, 4) for name, (total, n) in sums.items()}
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            text = " ".join(f"{k} {v}" for k, v in line.items() if k != "step")
            window, sums = (done, now), {}
        report(stage, done, text)
        if workers.first and (done % stage.save_every == 0 or done == stage.steps):
            state = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "step": done,
                     "seconds": time.time() - began}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
