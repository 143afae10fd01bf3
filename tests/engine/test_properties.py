"""Random models, schedules, batches and prompts of every family, each held against every oracle.

A failure prints the seed and the settings; `draw(family, seed)` makes them again.
"""

from __future__ import annotations

import pytest
import tiny
import torch
import zoo
from drawn import TOLERANCE, draw
from exactness import close, generate, kept
from oracle import masked_stock

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.families import facts_of

FEW, MANY = range(20), range(20, 320)


def hold(family: str, seed: int) -> None:
    tokens = facts_of(zoo.build(family)).visual_tokens
    attention, settings, rows, padding = draw(family, seed, tokens)
    print(f"{family}, seed {seed}: {attention}, {settings}, rows {rows}, padded {padding}")
    model, batch = zoo.build(family, attention, seed=seed), zoo.inputs(family, rows, padding, seed=seed)
    handle = duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words())
    renumber = handle.renumbers
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
