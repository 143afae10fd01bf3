"""Stock against compressed, side by side in one run: how much of what the FLOPs promise does the clock see?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..applying import apply
from ..engine.handle import Duet
from ..errors import DuetError
from ..inputs.random_weights import random_model
from ..presets import DuetConfig
from .settings import Setting, label
from .summary import summarise
from .timing import Clock, PeakMemory, hardware, median, time_in_hooks, time_modules, versions
from .workload import OneWordPerToken, Workload, narrow, stored_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WARM_UPS = 1
OVERHEAD_STEPS = 200


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        runs: timed rounds, each of which runs every setting once; the medians are reported.
        batch_size: rows, one image each.
        text_tokens: text tokens per row.
        decode_steps: tokens decoded after each prefill.
        dtype, device, threads: where and in what to compute; None leaves torch's number of threads.
        grid, tiles, size: of each image; see `Workload`.
    """

    runs: int = 5
    batch_size: int = 1
    text_tokens: int = 64
    decode_steps: int = 16
    dtype: str = "bfloat16"
    device: str = "cpu"
    threads: int | None = None
    grid: tuple[int, ...] | None = None
    tiles: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, minimum in (("runs", 1), ("batch_size", 1), ("text_tokens", 1), ("decode_steps", 1)):
            if getattr(self, name) < minimum:
                raise DuetError(f"{name} {getattr(self, name)} must be at least {minimum}.")
        if self.threads is not None and self.threads < 1:
            raise DuetError(f"threads {self.threads} must be at least 1.")


def benchmark(
    model: Any, listed: list[Setting], options: Options, advance: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Time every setting, interleaved (stock, first, second, ..., stock, ...), and compare with the first, stock.

    Prefill is timed as `generate` does it: from encoded images, with a cache, logits of the last token. What the two
    stages spend is measured in runs of its own, so that no other figure pays for the measurement. Salient words are
    given by `OneWordPerToken`.

    Args:
        model: a supported model without compression.
        listed: from `settings`.
        options: how to measure.
        advance: called with a description before each of `steps(...)` pieces of work.

    Returns:
        JSON-able: `settings` (one entry per compressed setting), `stock`, `options`, `hardware`, `versions`.
    """
    threads = torch.get_num_threads()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        work = workload(model, options)
        figures_of: list[dict[str, list[Any]]] = [{} for _ in listed]
        for run in range(WARM_UPS + options.runs):
            for setting, notes in zip(listed, figures_of, strict=True):
                advance(f"{label(setting)}, {'warm-up' if run < WARM_UPS else f'run {run + 1 - WARM_UPS}'}")
                figures = run_once(work, setting, options)
                if run >= WARM_UPS:
                    for name, value in figures.items():
                        notes.setdefault(name, []).append(value)
        advance("decode overhead")
        overheads = decode_overheads(model.config, listed, options)
        rows = [summarise(work, s, n, figures_of[0]) for s, n in zip(listed, figures_of, strict=True)]
        for row, overhead in zip(rows[1:], overheads, strict=True):
            row["decode_us_per_layer"] = overhead
        return {
            "settings": rows[1:],
            "stock": rows[0],
            "options": asdict(options) | {"layers": len(rows[0]["tokens_per_layer"])},
            "unit": work.image.unit,
            "hardware": hardware(options.device),
            "versions": versions(),
        }
    finally:
        torch.set_num_threads(threads)


def steps(listed: list[Setting], options: Options) -> int:
    """How often `benchmark` calls `advance`."""
    return (WARM_UPS + options.runs) * len(listed) + 1


def workload(model: Any, options: Options) -> Workload:
    return Workload(model, options.batch_size, options.text_tokens, options.grid, options.tiles, options.size)


@contextmanager
def compressed(model: Any, config: DuetConfig) -> Iterator[Duet]:
    with apply(model, config, tokenizer=OneWordPerToken()) as handle:
        yield handle


def run_once(work: Workload, setting: Setting, options: Options) -> dict[str, Any]:
    """One run of one setting: seconds, and bytes."""
    clock, memory = Clock(options.device), PeakMemory(options.device)
    layers = list(work.layers)
    with compressed(work.model, setting.config) as handle:
        memory.start()
        encode, features = clock.time(work.encode)
        prefill, cache = clock.time(lambda: work.prefill(features))
        stored = stored_bytes(cache)
        decode = median([clock.time(lambda: work.step(cache))[0] for _ in range(options.decode_steps)])
        figures: dict[str, Any] = {
            "encode": encode, "prefill": prefill, "decode": decode, "kv_bytes": stored, "peak": memory.read(),
            "queries": 0 if handle.trace is None else len(handle.trace.samples[0].queries),
        }  # fmt: skip
        with time_modules([work.tower], clock) as tower, time_in_hooks(work.core, clock) as hooks:
            features = work.encode()
        figures |= {"tower": sum(tower[0]), "stage1": sum(hooks)}
        if setting.config.ranks:
            rankings: dict[int, float] = {}

            def watch(layer: int, rank: Callable[[], Any]) -> Any:
                rankings[layer], scores = clock.time(rank)
                return scores

            with handle.engine.watching(watch), time_modules(layers, clock) as spent:
                work.prefill(features)
            figures |= {"rankings": rankings, "layers": [seconds[0] for seconds in spent]}
    return figures


def decode_overheads(config: PreTrainedConfig, listed: list[Setting], options: Options) -> list[float]:
    """Microseconds that each compressed setting adds to a decoding step, per layer.

    A compressed cache is shorter, and what it saves would hide what the hooks cost. So this is measured where reading
    keys and values costs nothing: on a model of the same depth, prompt and schedule, 16 wide. Stock and compressed
    decode in turns, token by token.
    """
    clock = Clock(options.device)
    stock = workload(random_model(narrow(config), "float32", options.device), options)
    overheads = []
    for setting in listed[1:]:
        work = copy.deepcopy(stock)
        with compressed(work.model, setting.config):
            plain, pruned = stock.prefill(stock.encode()), work.prefill(work.encode())
            difference = []
            for _ in range(OVERHEAD_STEPS):
                before = clock.time(lambda: stock.step(plain))[0]  # noqa: B023
                difference.append(clock.time(lambda: work.step(pruned))[0] - before)  # noqa: B023
        overheads.append(median(difference[OVERHEAD_STEPS // 10 :]) * 1e6 / len(stock.layers))
    return overheads
