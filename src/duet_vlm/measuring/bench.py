"""Stock against compressed, side by side in one run: how much of what the FLOPs promise does the clock see?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..applying import apply
from ..engine.handle import Duet
from ..errors import DuetError
from ..families.image_shape import ImageShape, largest_tiles
from ..families.random_images import usual_grid
from ..inputs.checkpoints import random_model
from ..inputs.choice import SAVED, chosen
from ..presets import Drop, DuetConfig, preset
from .timing import Clock, PeakMemory, hardware, median, time_in_hooks, time_modules, versions
from .workload import OneWordPerToken, Workload, narrow, stored_bytes

WARM_UPS = 1
OVERHEAD_STEPS = 200


@dataclass(frozen=True)
class Setting:
    """One column of the benchmark: a method at a budget. `stock` has neither."""

    method: str
    tokens: float | None
    config: DuetConfig


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        runs: timed rounds, each of which runs every setting once; the medians are reported.
        batch_size: rows, one image each.
        text_tokens: text tokens per row.
        decode_steps: tokens decoded after each prefill.
        dtype, device, threads: where and in what to compute; None leaves torch's number of threads.
        grid, tiles: of each image; see `Workload`.
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

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("batch_size", 1), ("text_tokens", 1), ("decode_steps", 1)):
            if getattr(self, name) < least:
                raise DuetError(f"{name} {getattr(self, name)} must be at least {least}.")
        if self.threads is not None and self.threads < 1:
            raise DuetError(f"threads {self.threads} must be at least 1.")


def settings(
    config: Any,
    methods: list[str],
    budgets: list[float],
    layers: int | None = None,
    grid: tuple[int, ...] | None = None,
    tiles: int | None = None,
) -> list[Setting]:
    """Stock, every method at every budget, and for "saved" the settings that the model brings.

    Each is solved on the model's full depth, so published settings stay as published; on fewer `layers` the drop
    layers are scaled (16 and 24 of 32 become 4 and 6 of 8), which keeps the average of tokens per layer.

    Args:
        grid, tiles: of each image; see `Workload`.

    Raises:
        ValueError: an unknown method, a budget that it cannot meet, or more layers than the model has.
    """
    full = config.get_text_config().num_hidden_layers
    layers = full if layers is None else layers
    if not 1 <= layers <= full:
        raise DuetError(f"layers {layers} is not possible: this model has {full} decoder layers, choose 1 to {full}.")
    listed = [Setting("stock", None, DuetConfig())]
    grid = usual_grid(config) if grid is None else grid
    image = ImageShape.of(config, grid, tiles)
    if grid is None and image.dynamic:
        rows, columns, in_row = largest_tiles(config)
        grid = rows * in_row, columns * in_row
    for method in methods:
        if method == SAVED:
            saved = chosen(config, method, None, None).config
            counts = image.tokens_per_layer(saved, full)
            parts = 1 if image.unit == "image" else image.crops
            listed.append(Setting(method, sum(counts) / full / parts, scaled(saved, full, layers)))
            continue
        for tokens in budgets:
            whole = preset(method, model=config, tokens=tokens, grid=grid)
            listed.append(Setting(method, tokens, scaled(whole, full, layers)))
    return listed


def scaled(config: DuetConfig, full: int, layers: int) -> DuetConfig:
    """The same schedule on fewer layers; drops that fall on one layer leave the last of them."""
    at: dict[int, Drop] = {}
    for drop in config.drops:
        layer = max(1, drop.layer * layers // full)
        rank_at = None if drop.rank_at is None else max(0, layer - (drop.layer - drop.rank_at))
        at[layer] = Drop(layer, drop.keep, rank_at)
    return replace(config, drops=[drop for layer, drop in at.items() if layer < layers])


def shortened(config: Any, layers: int | None) -> Any:
    """The config with fewer decoder layers."""
    config = copy.deepcopy(config)
    if layers is not None:
        config.get_text_config().num_hidden_layers = layers
    return config


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
        seen: list[dict[str, list[Any]]] = [{} for _ in listed]
        for run in range(WARM_UPS + options.runs):
            for setting, notes in zip(listed, seen, strict=True):
                advance(f"{label(setting)}, {'warm-up' if run < WARM_UPS else f'run {run + 1 - WARM_UPS}'}")
                figures = measure(work, setting, options)
                if run >= WARM_UPS:
                    for name, value in figures.items():
                        notes.setdefault(name, []).append(value)
        advance("decode overhead")
        overheads = decode_overheads(model.config, listed, options)
        rows = [summarise(work, s, n, seen[0]) for s, n in zip(listed, seen, strict=True)]
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
    return Workload(model, options.batch_size, options.text_tokens, options.grid, options.tiles)


def label(setting: Setting) -> str:
    return setting.method if setting.tokens is None else f"{setting.method} {setting.tokens:g}"


@contextmanager
def compressed(model: Any, config: DuetConfig) -> Iterator[Duet]:
    with apply(model, config, tokenizer=OneWordPerToken()) as handle:
        yield handle


def measure(work: Workload, setting: Setting, options: Options) -> dict[str, Any]:
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


def decode_overheads(config: Any, listed: list[Setting], options: Options) -> list[float]:
    """Microseconds that each compressed setting adds to a decoding step, per layer.

    A compressed cache is shorter, and what it saves would hide what the hooks cost. So this is measured where reading
    keys and values costs nothing: on a model of the same depth, prompt and schedule, 16 wide. Stock and compressed
    decode in turns, token by token.
    """
    clock = Clock(options.device)
    stock = workload(random_model(narrow(config), "float32", options.device), options)
    found = []
    for setting in listed[1:]:
        work = copy.deepcopy(stock)
        with compressed(work.model, setting.config):
            plain, pruned = stock.prefill(stock.encode()), work.prefill(work.encode())
            difference = []
            for _ in range(OVERHEAD_STEPS):
                before = clock.time(lambda: stock.step(plain))[0]  # noqa: B023
                difference.append(clock.time(lambda: work.step(pruned))[0] - before)  # noqa: B023
        found.append(median(difference[OVERHEAD_STEPS // 10 :]) * 1e6 / len(stock.layers))
    return found


def summarise(
    work: Workload, setting: Setting, notes: dict[str, list[Any]], stock: dict[str, list[Any]]
) -> dict[str, Any]:
    """Medians, and what they are of stock's."""
    counts = work.tokens_per_layer(setting.config)
    middle = {k: median(notes[k]) for k in ("encode", "prefill", "decode", "tower", "stage1")}
    base = {k: median(stock[k]) for k in ("encode", "prefill", "decode", "tower")}
    peaks = [peak for peak in notes["peak"] if peak is not None]
    row = {
        "method": setting.method,
        "tokens": setting.tokens,
        "tokens_in": counts[0],
        "tokens_average": sum(counts) / len(counts),
        "tokens_per_layer": counts,
        "query_tokens": notes["queries"][0],
        "encode_ms": 1e3 * middle["encode"],
        "prefill_ms": 1e3 * middle["prefill"],
        "decode_ms": 1e3 * middle["decode"],
        "kv_bytes": notes["kv_bytes"][0],
        "kv_bytes_expected": work.kv_bytes(setting.config),
        "peak_memory": median(peaks) if peaks else None,
        "prefill_flops": work.flops(setting.config),
    }
    if setting.tokens is None:
        return row | {"tower_ms": 1e3 * middle["tower"]}
    rankings = rankings_over_layers(counts, notes)
    speedup = base["prefill"] / middle["prefill"]
    ratio = work.flops(DuetConfig()) / work.flops(setting.config)
    paired = [before / after for before, after in zip(stock["prefill"], notes["prefill"], strict=True)]
    return row | {
        "config": setting.config.to_dict(),
        "prefill_speedup": speedup,
        "prefill_speedup_range": [min(paired), max(paired)],
        "flops_ratio": ratio,
        "share": speedup / ratio,
        "tower_prefill_speedup": (base["encode"] + base["prefill"]) / (middle["encode"] + middle["prefill"]),
        "decode_speedup": base["decode"] / middle["decode"],
        "stage1_ms": 1e3 * middle["stage1"],
        "stage1_over_tower": middle["stage1"] / base["tower"],
        "encode_difference_ms": 1e3 * (middle["encode"] - base["encode"]),
        "rankings": rankings,
        "ranking_over_layer": max((r["over_layer"] for r in rankings), default=0.0),
    }


def rankings_over_layers(counts: list[int], notes: dict[str, list[Any]]) -> list[dict[str, float]]:
    """Each ranking against the decoder layers before it that work on the tokens it ranks."""
    found = []
    for layer in notes.get("rankings", [{}])[0]:
        ranked = counts[max(0, layer - 1)]
        alike = [i for i in range(max(1, layer)) if counts[i] == ranked]
        ranking = median([run[layer] for run in notes["rankings"]])
        whole = median([run[i] for run in notes["layers"] for i in alike])
        found.append({"layer": layer, "ms": 1e3 * ranking, "layer_ms": 1e3 * whole, "over_layer": ranking / whole})
    return found
