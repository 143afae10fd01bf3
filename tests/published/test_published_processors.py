"""Prompts of published processors through both stages, and a published language model behind a tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest
import torch
from oracle import masked_stock

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.checks.checking import PROMISES
from duet_vlm.checks.prompts import ROWS, picture
from duet_vlm.inputs.prompts import prompt, special_tokens
from duet_vlm.stage2.words import salient_spans

pytestmark = pytest.mark.published


@pytest.mark.parametrize("make", [published.llava, published.qwen3_vl, published.gemma3])
def test_every_promise_holds_for_prompts_of_published_processors(
    make: Callable[[Path], tuple[Any, Any]], tmp_path: Path
) -> None:
    model, processor = make(tmp_path)
    report = duet_vlm.check(published.randomized(model), processor)
    assert {line.promise: line.result for line in report.lines} == dict.fromkeys(PROMISES, "holds"), str(report)


def test_every_promise_holds_for_a_published_language_model(tmp_path: Path) -> None:
    report = duet_vlm.check(*published.with_smollm2(tmp_path))
    assert {line.promise: line.result for line in report.lines} == dict.fromkeys(PROMISES, "holds"), str(report)


def test_published_language_model_equals_the_masking_oracle_and_is_asked_by_words(tmp_path: Path) -> None:
    model, processor = published.with_smollm2(tmp_path)
    question = ROWS[1][1]
    text = prompt(processor, question, None)
    batch = dict(processor(images=picture(1, 400, 300), text=text, return_tensors="pt", **special_tokens(processor)))
    handle = duet_vlm.apply(model, DuetConfig.preset("duet", model=model, tokens=192), tokenizer=processor)
    with torch.no_grad():
        out = model(**batch)
    assert handle.trace is not None
    (sample,) = handle.trace.samples
    alive = {}
    for drop in sample.drops:
        alive[drop.layer] = batch["input_ids"] != model.config.image_token_id
        alive[drop.layer][0, drop.kept] = True
    hidden, there = masked_stock(model, batch, alive, handle.renumbers)
    expected = model.lm_head(hidden)[there].detach()
    assert torch.allclose(out.logits[there], expected, atol=2e-4 * float(expected.abs().max()), rtol=0)
    asked = sample.queries
    words = [processor.tokenizer.decode([int(batch["input_ids"][0, place])]).strip() for place in asked]
    last = ":"  # of ASSISTANT: the prompt's last token always asks
    assert "".join(words) == "".join(question[a:b] for a, b in salient_spans(question)) + last
