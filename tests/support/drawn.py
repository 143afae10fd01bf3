"""Settings and prompts of every family, drawn by a seed."""

from __future__ import annotations

import random
from typing import Any

import zoo
import zoo_qwen

from duet_vlm import Drop
from duet_vlm.config.choices import CHOICES

TOLERANCE = 5e-5


def draw(family: str, seed: int, tokens: int | None) -> tuple[str, dict[str, Any], zoo.Rows, str]:
    """An attention, settings, rows and a padding side; `tokens` per image, None where images differ."""
    rng = random.Random(f"{family} {seed}")
    at = sorted(rng.sample(range(1, zoo.LAYERS), rng.randint(0, 3)))
    if family in zoo_qwen.HYBRIDS:  # between two drops one layer must have attention, to rank the second
        at = [
            now for before, now in zip([-1, *at], at, strict=False) if any(before < i <= now for i in zoo_qwen.ATTEND)
        ]
    ratios = sorted((rng.choice([0.0, 1.0, rng.random(), rng.random(), rng.random()]) for _ in at), reverse=True)
    positions = ["auto", "keep", "renumber"] if zoo.FAMILIES[family].renumbers else ["auto", "keep"]
    settings: dict[str, Any] = {
        "drops": [Drop(layer, ratio) for layer, ratio in zip(at, ratios, strict=True)],
        "query": rng.choice(CHOICES["query"]),
        "positions": rng.choice(positions),
    }
    if (rng.random() < 0.7 or not at) and family in zoo.SEEING:
        dominant: Any = rng.randint(2, (tokens or 24) - 1)
        contextual: Any = rng.randint(0, (tokens or 24) - dominant)
        if tokens is None and rng.random() < 0.5:
            dominant, contextual = 0.1 + 0.6 * rng.random(), 0.05 + 0.2 * rng.random()
        settings |= {"dominant": dominant, "contextual": contextual}
        settings |= {"cluster_width": rng.randint(1, 6), "merging": rng.choice(["duet", "visionzip"])}
        if zoo.FAMILIES[family].merging != "duet":
            settings["merging"] = zoo.FAMILIES[family].merging
    if zoo.FAMILIES[family].more:
        settings["audio_keep"] = 0.2 + 0.8 * rng.random()
    kinds = "iiv" if zoo.has_video(family) else "i"
    rows: list[tuple[int | str, ...]] = []
    for _ in range(rng.randint(1, 3)):
        row: list[int | str] = [rng.randint(1, 9)]
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            row += [rng.choice(kinds), rng.randint(1, 9)]
        rows.append(tuple(row))
    if all(len(row) == 1 for row in rows):
        rows.append((3, "i", 5))
    return rng.choice(["sdpa", "eager"]), settings, tuple(rows), rng.choice(["left", "right"])
