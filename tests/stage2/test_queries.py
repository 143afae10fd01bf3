"""Which tokens ask: text after the image, never answers, never the text before, never nobody."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.stage2.queries import query_places

IMG = tiny.IMAGE
#                  0  1    2    3  4  5  6  7    8  9
PROMPT = torch.tensor([[3, 6, IMG, IMG, 4, 9, 5, IMG, 12, 7]])


def places(query: str, labels: Any = None, valid: Any = None, ids: torch.Tensor = PROMPT) -> list[list[int]]:
    config = DuetConfig(query=query)
    valid = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
    return query_places(config, tiny.Words(), ids, ids == IMG, valid, labels).tolist()


def test_all_last_and_salient() -> None:
    assert places("all") == [[4, 5, 6, 8, 9]]
    assert places("last") == [[9]]
    assert places("salient") == [[5, 8, 9]]  # ids divisible by three are nouns; those before the image do not ask


def test_padding_never_asks() -> None:
    valid = torch.ones_like(PROMPT, dtype=torch.bool)
    valid[0, 8:] = False
    assert places("all", valid=valid) == [[4, 5, 6]]
    assert places("salient", valid=valid) == [[5, 6]]


def test_answers_never_ask() -> None:
    labels = torch.full_like(PROMPT, -100)
    labels[0, 8] = 12
    assert places("all", labels) == [[4, 5, 6]]  # 9 comes after the answer
    assert places("last", labels) == [[6]]
    assert places("salient", labels) == [[5, 6]]


def test_a_query_set_is_never_empty() -> None:
    ids = torch.tensor([[3, 6, IMG, IMG], [3, 4, 5, 7]])
    assert places("salient", ids=ids) == [[3], [-1]]  # the prompt ends with its image; a row without one asks nothing


def test_salient_falls_back_to_the_last_token() -> None:
    assert places("salient", ids=torch.tensor([[3, IMG, 4, 5, 7]])) == [[4]]


@pytest.mark.engine
@pytest.mark.parametrize("query", ["salient", "all", "last"])
def test_trace_tells_who_asked(query: str) -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9), (2, 6), (8,)))
    handle = duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.5)], query=query), tokenizer=tiny.Words())
    with torch.no_grad():
        model(**batch)
    assert handle.trace is not None
    for row, sample in enumerate(handle.trace.samples):
        ids = batch["input_ids"][row].tolist()
        text = [i for i in range(len(ids)) if batch["attention_mask"][row, i] and ids[i] != IMG]
        after = [i for i in text if sample.visual and i > max(sample.visual)]
        expected = {
            "all": after,
            "last": after[-1:],
            "salient": sorted({i for i in after if ids[i] % 3 == 0} | set(after[-1:])),
        }
        assert sample.queries == expected[query]
