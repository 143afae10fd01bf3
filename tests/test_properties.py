"""Random models, schedules, batches and prompts of every family, each held against every oracle.

A failure prints the seed and the settings; `draw(family, seed)` makes them again.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny
import torch
import zoo
from oracle import masked_stock
from test_engine import close
from test_families import generate, kept, renumbers

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.choices import CHOICES
from duet_vlm.families import facts_of

FEW, MANY = range(20), range(20, 320)
TOLERANCE = 5e-5


def draw(family: str, seed: int, tokens: int | None) -> tuple[str, dict[str, Any], zoo.Rows, str]:
    """An attention, settings, rows and a padding side; `tokens` per image, None where images differ."""
    rng = random.Random(f"{family} {seed}")
    at = sorted(rng.sample(range(1, zoo.LAYERS), rng.randint(0, 3)))
    ratios = sorted((rng.choice([0.0, 1.0, rng.random(), rng.random(), rng.random()]) for _ in at), reverse=True)
    positions = ["auto", "keep", "renumber"] if zoo.FAMILIES[family].renumbers else ["auto", "keep"]
    settings: dict[str, Any] = {
        "drops": [Drop(layer, ratio) for layer, ratio in zip(at, ratios, strict=True)],
        "query": rng.choice(CHOICES["query"]),
        "positions": rng.choice(positions),
    }
    if rng.random() < 0.7 or not at:
        dominant: Any = rng.randint(2, (tokens or 24) - 1)
        contextual: Any = rng.randint(0, (tokens or 24) - dominant)
        if tokens is None and rng.random() < 0.5:
            dominant, contextual = 0.1 + 0.6 * rng.random(), 0.05 + 0.2 * rng.random()
        settings |= {"dominant": dominant, "contextual": contextual}
        settings |= {"cluster_width": rng.randint(1, 6), "merging": rng.choice(["duet", "visionzip"])}
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


def hold(family: str, seed: int) -> None:
    tokens = facts_of(zoo.build(family)).visual_tokens
    attention, settings, rows, padding = draw(family, seed, tokens)
    print(f"{family}, seed {seed}: {attention}, {settings}, rows {rows}, padded {padding}")
    model, batch = zoo.build(family, attention, seed=seed), zoo.inputs(family, rows, padding, seed=seed)
    handle = duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words())
    renumber = renumbers(model, handle)
    with torch.no_grad():
        out = model(**batch, use_cache=bool(seed % 2))
        if handle.trace is None:  # nothing to do was drawn
            return
        hidden, there = masked_stock(model, batch, kept(handle, batch), renumber)
        close(out.logits[there], model.lm_head(hidden)[there], TOLERANCE)
        for number, row in enumerate(rows):
            alone = model(**zoo.inputs(family, (row,), seed=seed, first=number)).logits[0]
            close(out.logits[number, batch["attention_mask"][number].bool()], alone, TOLERANCE)
    if padding == "left":
        new = generate(model, batch, 4)
        length = batch["input_ids"].shape[1]
        full = zoo.extended(family, batch, new.sequences[:, length:-1])
        hidden, _ = masked_stock(model, full, kept(handle, batch, more=3), renumber)
        close(torch.stack(new.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach(), TOLERANCE)


@pytest.mark.parametrize("family", zoo.FAMILIES)
@pytest.mark.parametrize("seed", FEW)
def test_drawn_settings_hold(family: str, seed: int) -> None:
    hold(family, seed)


@pytest.mark.long
@pytest.mark.parametrize("family", zoo.FAMILIES)
@pytest.mark.parametrize("seed", MANY)
def test_many_drawn_settings_hold(family: str, seed: int) -> None:
    hold(family, seed)
