"""What compression makes of prefill in every family's decoder: python results/bench/families.py SHAPE LAYERS [TILES].

As `duet bench --shape SHAPE --layers LAYERS --keep 0.33 0.11`, whose figures it takes: random weights, bfloat16, stock
and compressed in turns, medians. But towers, which take longer than 8 decoder layers, are not timed: they have 3 layers
here, and an image is encoded once for each setting. Seconds are those of one core (`process_time` of one thread), so
that other programs on the machine do not count. Writes families/SHAPE.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from duet_vlm.inputs.random_weights import random_model
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.measuring.bench import Options, compressed, workload
from duet_vlm.measuring.settings import settings, shortened
from duet_vlm.measuring.summary import head, rankings_over_layers
from duet_vlm.measuring.timing import Clock, hardware, median, time_modules, versions
from duet_vlm.measuring.workload import stored_bytes

KEEP = (0.33, 0.11)
RUNS = 3


class CoreClock(Clock):
    """Reads how long this process has computed, instead of the time of day."""

    def now(self) -> float:
        return time.process_time()


def with_short_tower(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config with 3 layers in its tower, the last of which is ranked by."""
    vision = config.vision_config
    for name, value in (
        ("depth", 3), ("num_hidden_layers", 3), ("fullatt_block_indexes", [2]), ("deepstack_visual_indexes", [0, 1, 2]),
    ):  # fmt: skip
        if hasattr(vision, name):
            setattr(vision, name, value)
    return config


def main(shape: str, layers: int, tiles: int | None) -> None:
    torch.set_num_threads(1)
    config, options, clock = shape_config(shape), Options(runs=RUNS, tiles=tiles), CoreClock("cpu")
    listed = settings(config, ["duet"], [], layers, tiles=tiles, keep=KEEP)
    short = with_short_tower(shortened(config, layers))
    work = workload(random_model(short, "bfloat16", "cpu"), options)
    notes: list[dict[str, list[Any]]] = [{"prefill": [], "rankings": [], "layers": []} for _ in listed]
    features, rows = [], []
    for setting in listed:
        with compressed(work.model, setting.config):
            features.append(work.encode())
    for run in range(1 + RUNS):
        for setting, encoded, noted in zip(listed, features, notes, strict=True):
            with compressed(work.model, setting.config):
                seconds, cache = clock.time(lambda: work.prefill(encoded))  # noqa: B023
            if run:
                noted["prefill"].append(seconds)
            noted["kv_bytes"] = [stored_bytes(cache)]
            print(f"{shape} {setting.keep} run {run}: {seconds:.2f} s", file=sys.stderr, flush=True)
    for setting, encoded, noted in zip(listed[1:], features[1:], notes[1:], strict=True):
        rankings: dict[int, float] = {}

        def watch(layer: int, rank: Callable[[], Any]) -> Any:
            rankings[layer], scores = clock.time(rank)  # noqa: B023
            return scores

        with (
            compressed(work.model, setting.config) as handle,
            handle.engine.watching(watch),
            time_modules(list(work.layers), clock) as spent,
        ):
            work.prefill(encoded)
        noted["rankings"].append(rankings)
        noted["layers"].append([times[0] for times in spent])
    whole = work.flops(listed[0].config)
    for setting, noted in zip(listed, notes, strict=True):
        assert noted["kv_bytes"] == [work.kv_bytes(setting.config)], "the cache holds what the schedule says"
        counts, flops = work.tokens_per_layer(setting.config), work.flops(setting.config)
        paired = [a / b for a, b in zip(notes[0]["prefill"], noted["prefill"], strict=True)]
        rankings_ = rankings_over_layers(counts, noted) if noted["rankings"] else []
        speedup = median(notes[0]["prefill"]) / median(noted["prefill"])
        rows.append(
            {
                **head(setting, counts), "config": setting.config.to_dict(),
                "prefill_ms": 1e3 * median(noted["prefill"]), "prefill_flops": flops, "prefill_speedup": speedup,
                "prefill_speedup_range": [min(paired), max(paired)], "flops_ratio": whole / flops,
                "share": speedup * flops / whole, "rankings": rankings_,
                "ranking_over_layer": max((r["over_layer"] for r in rankings_), default=0.0),
            }
        )  # fmt: skip
    report = {
        "model": shape, "stock": rows[0], "settings": rows[1:], "hardware": hardware("cpu"), "versions": versions(),
        "options": {"layers": layers, "tiles": tiles, "runs": RUNS, "text_tokens": options.text_tokens},
    }  # fmt: skip
    out = Path(__file__).with_name("families") / f"{shape}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(shape, *(f"keep {r['keep']}: {r['prefill_speedup']:.2f} of {r['flops_ratio']:.2f}, share {r['share']:.2f}"
                   for r in rows[1:]), sep="; ")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
