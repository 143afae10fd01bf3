"""Random models, schedules, batches and prompts, each held against every oracle; a failure prints seed and settings."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny
import torch
from oracle import masked_prefill
from test_engine import FAMILIES, close, extend, generate, kept

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config import QUERIES

FEW, MANY = range(20), range(20, 320)
TOLERANCE = 5e-5


def draw(seed: int) -> tuple[str, str, dict[str, Any], tuple[tuple[int, ...], ...], str]:
    """A family, an attention, settings, rows of text lengths and a padding side."""
    rng = random.Random(seed)
    at = sorted(rng.sample(range(1, tiny.LAYERS), rng.randint(0, 3)))
    ratios = sorted((rng.choice([0.0, 1.0, rng.random(), rng.random(), rng.random()]) for _ in at), reverse=True)
    settings: dict[str, Any] = {
        "drops": [Drop(layer, ratio) for layer, ratio in zip(at, ratios, strict=True)],
        "query": rng.choice(QUERIES),
        "positions": rng.choice(["auto", "renumber", "keep"]),
    }
    if rng.random() < 0.7 or not at:
        dominant = rng.randint(2, tiny.PATCHES - 1)
        settings |= {"dominant": dominant, "contextual": rng.randint(0, tiny.PATCHES - dominant)}
        settings |= {"cluster_width": rng.randint(1, 6), "merging": rng.choice(["duet", "visionzip"])}
    rows = tuple(
        tuple(rng.randint(1, 9) for _ in range(1 + rng.choice([0, 1, 1, 1, 2]))) for _ in range(rng.randint(1, 3))
    )
    if all(len(row) == 1 for row in rows):
        rows = (*rows, (3, 5))
    return rng.choice(FAMILIES), rng.choice(["sdpa", "eager"]), settings, rows, rng.choice(["left", "right"])


def hold(seed: int) -> None:
    family, attention, settings, rows, padding = draw(seed)
    print(f"seed {seed}: {family}, {attention}, {settings}, rows {rows}, padded {padding}")
    model, batch = tiny.build(family, attention, seed=seed), tiny.inputs(family, rows, padding, seed=seed)
    handle = duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words())
    renumber = settings["positions"] != "keep"
    with torch.no_grad():
        out = model(**batch, use_cache=bool(seed % 2))
        if handle.trace is None:  # nothing to do was drawn
            return
        alive = kept(handle, batch)
        hidden, there = masked_prefill(model, batch, alive, renumber)
        close(out.logits[there], model.lm_head(hidden)[there], TOLERANCE)
        for row in range(len(rows)):
            alone = model(**tiny.single(batch, row)).logits[0]
            close(out.logits[row, batch["attention_mask"][row].bool()], alone, TOLERANCE)
    if padding == "left":
        new = generate(model, batch, 4)
        length = batch["input_ids"].shape[1]
        full = extend(batch, new.sequences[:, length:-1])
        full["position_ids"] = (full["attention_mask"].cumsum(1) - 1).clamp(min=0)
        hidden, _ = masked_prefill(model, full, kept(handle, batch, more=3), renumber)
        close(torch.stack(new.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach(), TOLERANCE)


@pytest.mark.parametrize("seed", FEW)
def test_drawn_settings_hold(seed: int) -> None:
    hold(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", MANY)
def test_many_drawn_settings_hold(seed: int) -> None:
    hold(seed)
