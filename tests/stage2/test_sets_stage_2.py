"""Rankings that choose a set, against naive loops on each image by itself, and in the engine."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from encoded import TOKENS, entrance
from greedy_loops import determinant, tops
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cosine

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.registry import RANKINGS
from duet_vlm.stage2.ranking import RankingInputs, ranked
from duet_vlm.stage2.selection import Images, select

many = settings(max_examples=20, deadline=None)


def two_images_a_row(data: st.DataObject) -> RankingInputs:
    """Three rows of two images each, of sizes that rows share or do not, and a count for every image."""
    seen = entrance()
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    seen.hidden, seen.query = (torch.randn(x.shape, generator=generator) for x in (seen.hidden, seen.query))
    seen.questions = torch.randn(seen.questions.shape, generator=generator)
    seen.spans = torch.zeros_like(seen.spans)
    for row in range(3):
        middle = data.draw(st.sampled_from([8, 8, 12]), "middle")
        seen.spans[row, 2:middle], seen.spans[row, middle + 1 : 20] = 2 * row + 1, 2 * row + 2
    seen.visual = seen.spans > 0
    counts = [data.draw(st.integers(0, 5), "count") for _ in range(6)]
    seen.limits = torch.tensor([0, *counts])
    return seen


def naive_tops(seen: RankingInputs, row: int, places: list[int], count: int) -> list[int]:
    relevance = RANKINGS["attention"].load()(seen)[row, places].double().tolist()
    return tops(relevance, similarities(seen.hidden[row, places]), count)


def naive_cdpruner(seen: RankingInputs, row: int, places: list[int], count: int) -> list[int]:
    asking = [i for i, place in enumerate(seen.places.queries[row].tolist()) if place >= 0]
    asked, x = seen.questions[row, asking].double().tolist(), seen.hidden[row, places].double().tolist()
    relevance = [sum(cosine(one, other) for other in asked) / len(asked) for one in x]
    low, high = min(relevance), max(relevance)
    return determinant([(r - low) / (high - low) for r in relevance], similarities(seen.hidden[row, places]), count)


def similarities(hidden: torch.Tensor) -> list[list[float]]:
    x = hidden.double().tolist()
    return [[cosine(one, other) for other in x] for one in x]


@many
@given(st.data())
@pytest.mark.parametrize("name", ["tops", "cdpruner"])
def test_a_set_equals_the_naive_loop_on_every_image(name: str, data: st.DataObject) -> None:
    seen = two_images_a_row(data)
    seen.average = None
    found = RANKINGS[name].load()(seen)
    assert found.dtype == torch.bool and not bool(found[~seen.visual].any())
    for row in range(3):
        for span in (2 * row + 1, 2 * row + 2):
            places, count = (seen.spans[row] == span).nonzero()[:, 0].tolist(), int(seen.limits[span])
            naive = {"tops": naive_tops, "cdpruner": naive_cdpruner}[name]
            expected = sorted(places[i] for i in naive(seen, row, places, count)) if count else []
            assert [i for i in places if found[row, i]] == expected
    assert torch.equal(ranked(RANKINGS[name], seen), found.float())


def test_images_of_one_size_are_chosen_in_at_once() -> None:
    seen, asked = entrance(), list[Images]()

    def choose(images: Images) -> torch.Tensor:
        asked.append(images)
        return images.of(seen.hidden[..., 0]).topk(images.count).indices

    found = select(seen, choose)
    assert [(images.rows.tolist(), images.count) for images in asked] == [([[0], [1], [2]], TOKENS // 2)]
    assert asked[0].of(seen.hidden).shape == (3, TOKENS, seen.hidden.shape[2])
    for row in range(3):
        best = seen.hidden[row, :TOKENS, 0].argsort(descending=True)[: TOKENS // 2].tolist()
        assert found[row].nonzero()[:, 0].tolist() == sorted(best)


def test_a_prompt_without_an_image_has_an_empty_set() -> None:
    seen = entrance()
    seen.spans, seen.visual = torch.zeros_like(seen.spans), torch.zeros_like(seen.visual)
    seen.limits = seen.limits[:1]
    for name in ("tops", "cdpruner"):
        assert not ranked(RANKINGS[name], seen).any()


@pytest.mark.engine
@pytest.mark.parametrize("name", ["tops", "cdpruner"])
def test_a_question_changes_what_a_set_has(name: str) -> None:
    """The same picture and another text; and a method of one's own may choose a set in the same way."""
    model, batch = tiny.build(), tiny.inputs("llava", ((5, 9),))
    other = dict(batch, input_ids=batch["input_ids"].clone())
    other["input_ids"][0, -4:] += 1
    kept: list[Any] = []
    drops = [Drop(1, 0.5, rank_at=0)] if name == "cdpruner" else [Drop(2, 0.5)]

    def own(inputs: RankingInputs) -> torch.Tensor:
        return select(inputs, lambda images: images.of(inputs.hidden[..., 0]).topk(images.count).indices)

    for ranking, given_ in ((name, batch), (name, other), (name, batch), (own, batch)):
        config = DuetConfig(drops=drops, query="all", ranking=ranking)
        with torch.no_grad(), duet_vlm.apply(model, config) as handle:
            model(**given_)
        assert handle.trace is not None
        kept.append(handle.trace.samples[0].drops[0].kept)
    assert kept[0] == kept[2] != kept[1] and len({len(one) for one in kept}) == 1
