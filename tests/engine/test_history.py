"""Older images cost less: against counts given by hand, image by image."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import tiny
import torch
import zoo
from hostile import one_sentence
from matrix import settings
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.budget import stage1_counts
from duet_vlm.config.per_image import aged
from duet_vlm.families.recency import older_tokens

ROWS: zoo.Rows = ((2, "i", 3, "i", 3, "i", 6), (5, "i", 9), (12,))


def forward(model: Any, config: DuetConfig, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
    with torch.no_grad(), duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle:
        return model(**inputs, logits_to_keep=1).logits, handle.trace


def retained(trace: Any) -> list[int]:
    return [len(image.dominant) + len(image.anchors) for image in trace.images]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "internvl", "llava_next"])
def test_older_images_retain_what_counts_by_hand_give(family: str) -> None:
    model, inputs = zoo.build(family), zoo.inputs(family, ROWS)
    full = settings(family)
    counts = forward(model, full, inputs)[1]
    config = replace(full, history=0.5)
    _, trace = forward(model, config, inputs)
    names = [(image.dominant, image.anchors, image.clusters) for image in trace.images]
    whole = [(image.dominant, image.anchors, image.clusters) for image in counts.images]
    parts = [len(whole) // 4] * 4  # crops of each image
    if family == "internvl":  # some images have more tiles than others
        runs = [len(list(run)) for is_image, run in groupby(zoo.visual(inputs).flatten().tolist()) if is_image]
        parts = [run // len(trace.images[0].scores) for run in runs]
    assert len(parts) == 4 and sum(parts) == len(whole)
    older = sum(parts[:2])  # of the first row, but its last; the second has one
    newest = [*range(older, len(whole))]
    assert [names[i] for i in newest] == [whole[i] for i in newest]
    for i in range(older):
        tokens = len(trace.images[i].scores)
        reserved = 1 if family == "llava" else 0
        before = stage1_counts(full, tokens, dynamic=True)
        dominant, contextual = aged(config, before, reserved)
        assert dominant == max(1 + reserved, before[0] // 2) and contextual == max(1, before[1] // 2)
        if family == "llava_next":  # whose crops share in proportion
            continue
        by_hand = forward(model, replace(full, dominant=dominant, contextual=contextual), inputs)[1].images[i]
        assert names[i] == (by_hand.dominant, by_hand.anchors, by_hand.clusters)
    if family == "llava":
        first = trace.samples[0].tokens_per_layer
        kept = [sum(aged(config, before)) if i < 2 else sum(before) for i in range(3)]
        ratios = {drop.layer: drop.keep for drop in full.drops}
        at = [max((layer for layer in ratios if layer <= i), default=0) for i in range(len(first))]
        assert first == [sum(int(ratios.get(layer, 1) * n + 1e-6) for n in kept) for layer in at]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_rows_alone_and_generate_answer_as_a_batch(family: str) -> None:
    model = zoo.build(family)
    config = replace(settings(family), history=0.5)
    both, trace = forward(model, config, zoo.inputs(family, ROWS))
    for row in range(3):
        alone = zoo.inputs(family, ROWS[row : row + 1], first=row)
        logits, own = forward(model, config, alone)
        if own is not None:
            assert own.samples[0].tokens_per_layer == trace.samples[row].tokens_per_layer
    row = zoo.inputs(family, ROWS[:1])
    logits, _ = forward(model, config, row)
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle:
        out = model.generate(**row, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
        assert (
            handle.trace is not None and handle.trace.samples[0].tokens_per_layer == trace.samples[0].tokens_per_layer
        )
    torch.testing.assert_close(out.logits[0], logits[:, -1])
    assert both.shape[0] == 3


def test_features_encoded_apart_from_their_prompt_are_stock() -> None:
    model, inputs = zoo.build("llava"), zoo.inputs("llava", ROWS)
    stock = model.get_image_features(inputs["pixel_values"])
    with duet_vlm.apply(model, replace(settings("llava"), history=0.5), tokenizer=tiny.Words()):
        apart = model.model.get_image_features(inputs["pixel_values"])
        torch.testing.assert_close(torch.stack([*apart.pooler_output]), torch.stack([*stock.pooler_output]))
        pixels = inputs.pop("pixel_values")
        assert len(pixels) == 4
        with pytest.raises(DuetError, match="without stage 1") as error:
            model(**inputs, mm_encoder_outputs={"image": apart})
    one_sentence(error)


def naive(rows: list[list[str]], modality: str, runs: bool) -> list[bool]:
    found = []
    for row in rows:
        for place, kind in enumerate(row):
            if kind != modality:
                continue
            end = place
            while runs and end + 1 < len(row) and row[end + 1] == modality:
                end += 1
            found.append(any(other in ("i", "v") for other in row[end + 1 :]))
    return found


def test_what_follows_is_found_as_by_a_loop() -> None:
    rows = [list("tiitiivvt"), list("ttttvvtiv"), list("ttttttttt"), list("iiiiiiiii")]
    ids = torch.tensor([["tiv".index(kind) for kind in row] for row in rows])
    for runs in ((), ("video",), ("image", "video")):
        found = older_tokens(ids, {"image": 1, "video": 2}, runs)
        assert found == {
            "image": naive(rows, "i", "image" in runs), "video": naive(rows, "v", "video" in runs)
        }  # fmt: skip


def test_history_that_cannot_be_is_refused() -> None:
    for more, told in (
        (dict(history=0), "history 0 must be a fraction"),
        (dict(history=True), "must be a fraction"),
        (dict(history=0.5, dominant=None), "history 0.5 lowers what stage 1 retains"),
        (dict(history=0.5, merging="scope", dominant=0.5, coverage=0.9), "history 0.5 is a share of counts"),
    ):
        with pytest.raises(DuetError, match=told) as error:
            DuetConfig(**{"dominant": 9} | more)
        one_sentence(error)
    config = DuetConfig(dominant=9, drops=[Drop(2, 0.5)], history=0.5)
    assert config.to_dict()["version"] == 3 and DuetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(DuetError, match=r"history 0\.5 is not possible for a") as error:
        duet_vlm.apply(zoo.build("smolvlm"), replace(settings("smolvlm"), history=0.5), tokenizer=tiny.Words())
    one_sentence(error)
