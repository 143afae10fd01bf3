"""What the timed rounds of a benchmark say: medians, and what they are of stock's."""

from __future__ import annotations

from typing import Any

from ..presets import DuetConfig
from .settings import STOCK, Setting
from .timing import median
from .workload import Workload


def summarise(
    work: Workload, setting: Setting, notes: dict[str, list[Any]], stock: dict[str, list[Any]]
) -> dict[str, Any]:
    """Medians, and what they are of stock's."""
    counts = work.tokens_per_layer(setting.config)
    middle = {k: median(notes[k]) for k in ("encode", "prefill", "decode", "tower", "stage1")}
    base = {k: median(stock[k]) for k in ("encode", "prefill", "decode", "tower")}
    row = {
        **head(setting, counts),
        "query_tokens": notes["queries"][0],
        "encode_ms": 1e3 * middle["encode"],
        "prefill_ms": 1e3 * middle["prefill"],
        "decode_ms": 1e3 * middle["decode"],
        "kv_bytes": notes["kv_bytes"][0],
        "kv_bytes_expected": work.kv_bytes(setting.config),
        "peak_memory": median_peak(notes),
        "prefill_flops": work.flops(setting.config),
    }
    if setting.method == STOCK:
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


def head(setting: Setting, counts: list[int]) -> dict[str, Any]:
    """What was set, and the visual tokens of an image in each decoder layer under it."""
    return {
        "method": setting.method,
        "tokens": setting.tokens,
        "keep": setting.keep,
        "tokens_in": counts[0],
        "tokens_average": sum(counts) / len(counts),
        "tokens_per_layer": counts,
    }


def median_peak(notes: dict[str, list[Any]]) -> float | None:
    """The median of the peaks of memory; None where they cannot be read."""
    known = [value for value in notes["peak"] if value is not None]
    return median(known) if known else None


def rankings_over_layers(counts: list[int], notes: dict[str, list[Any]]) -> list[dict[str, float]]:
    """Each ranking against the decoder layers before it that work on the tokens it ranks."""
    listed = []
    for layer in notes.get("rankings", [{}])[0]:
        ranked = counts[max(0, layer - 1)]
        alike = [i for i in range(max(1, layer)) if counts[i] == ranked]
        ranking = median([run[layer] for run in notes["rankings"]])
        whole = median([run[i] for run in notes["layers"] for i in alike])
        listed.append({"layer": layer, "ms": 1e3 * ranking, "layer_ms": 1e3 * whole, "over_layer": ranking / whole})
    return listed
