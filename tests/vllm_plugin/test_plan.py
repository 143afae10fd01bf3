"""The plan of a step: counts and places of every stage, against a loop that drops and stores token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duet_vlm import Drop
from duet_vlm.vllm.plan import Row, stages_of
from duet_vlm.vllm.state import Beams, Prompt, average_left, dropping, removed_of

DROPS = (Drop(2, 0.6), Drop(5, 0.25), Drop(7, 0.0))


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, list[list[tuple[int, int]]]]:
    """A length, and the ranges of its images' tokens; some images come in two parts."""
    place, spans = draw(st.integers(0, 3)), []
    for _ in range(draw(st.integers(0, 3))):
        ranges = []
        for _ in range(draw(st.integers(1, 2))):
            size = draw(st.integers(1, 9))
            ranges.append((place, place + size))
            place += size + draw(st.integers(1, 3))
        spans.append(ranges)
    return place + draw(st.integers(1, 4)), spans


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[Prompt, int, int]]:
    """Prompts, how many of their tokens are computed, and how many come."""
    found = []
    for length, spans in draw(st.lists(prompts(), min_size=1, max_size=5)):
        prompt, answered = Prompt.of(length, list(range(length)), spans, DROPS), draw(st.integers(0, 5))
        decoding = draw(st.booleans())
        found.append((prompt, length + answered, 1) if decoding else (prompt, 0, length + answered))
    return found


def kept_places(prompt: Prompt, stage: int) -> list[int]:
    """Which places of a prompt are left: text, and as many of each span as the drop keeps; the first ones, say."""
    if stage == 0:
        return list(range(prompt.length))
    left, places = list(prompt.kept[stage - 1]), []
    for place, number in enumerate(prompt.numbers.tolist()):
        if number:
            left[number] -= 1
        if not number or left[number] >= 0:
            places.append(place)
    return places


@given(steps())
def test_stages_count_what_a_loop_drops(step: list[tuple[Prompt, int, int]]) -> None:
    rows = [
        Row(computed, scheduled, prompt.removed, enters=computed < prompt.length)
        for prompt, computed, scheduled in step
    ]
    stages = stages_of(rows, len(DROPS))
    assert len(stages) == len(DROPS) + 1
    for number, stage in enumerate(stages):
        first = 0
        for row, (prompt, computed, scheduled) in enumerate(step):
            # the cache of this request, one token after the other
            cache = kept_places(prompt, number) + list(range(prompt.length, computed + scheduled))
            fresh = [place for place in cache if place >= computed]
            assert (stage.starts[row], stage.starts[row + 1]) == (first, first + len(fresh))
            assert stage.lengths[row] == len(cache)
            here = slice(first, first + len(fresh))
            assert stage.rows[here].tolist() == [row] * len(fresh)
            assert stage.places[here].tolist() == [cache.index(place) for place in fresh]
            first += len(fresh)
        assert stage.tokens == first == len(stage.places)
        assert stage.longest_query == max(np.diff(stage.starts))


@given(prompts())
def test_a_prompt_knows_its_spans(made: tuple[int, list[list[tuple[int, int]]]]) -> None:
    length, spans = made
    prompt = Prompt.of(length, None, spans, DROPS)
    expected = [0] * length
    for number, ranges in enumerate(spans, start=1):
        for start, end in ranges:
            expected[start:end] = [number] * (end - start)
    assert prompt.numbers.tolist() == expected
    for drop, kept, removed in zip(DROPS, prompt.kept, prompt.removed, strict=True):
        assert kept == (0, *(int(drop.keep * expected.count(n) + 1e-6) for n in range(1, len(spans) + 1)))
        assert removed == sum(n > 0 for n in expected) - sum(kept)
    assert removed_of(spans, DROPS) == prompt.removed


@given(prompts())
def test_an_average_over_layers(made: tuple[int, list[list[tuple[int, int]]]]) -> None:
    length, spans = made
    prompt, layers = Prompt.of(length, None, spans, DROPS), 9
    text = length - sum(end - start for ranges in spans for start, end in ranges)
    left = [len(kept_places(prompt, sum(drop.layer <= layer for drop in DROPS))) - text for layer in range(layers)]
    assert average_left(spans, DROPS, layers) == pytest.approx(sum(left) / layers)
    assert average_left(spans, (), layers) == left[0]


def test_an_image_alone_is_served_whole() -> None:
    alone, beside = [[(0, 9)]], [[(1, 9)]]
    assert dropping(alone, 9, DROPS) == [] and dropping(beside, 9, DROPS) == beside
    assert dropping(alone, 9, DROPS[:2]) == alone  # a part of it stays
    assert dropping([], 3, DROPS) == []


def test_a_beam_search_keeps_its_prompt() -> None:
    beams = Beams(most=8)
    prompt = [1, 9, 9, 5]
    assert beams.prompt_of(prompt, ["a"]) == 4
    assert beams.prompt_of([*prompt, 7], ["a"]) == 4
    assert beams.prompt_of([*prompt, 8], ["a"]) == 4
    assert beams.prompt_of([*prompt, 7, 6], ["a"]) == 4
    assert beams.prompt_of([*prompt, 7, 6], ["b"]) == 6  # another image, another search
    assert beams.prompt_of([*prompt, 3, 3, 3], ["a"]) == 7  # more than one token
    for other in range(8):
        beams.prompt_of([other], ["a"])
    assert beams.prompt_of([*prompt, 7, 6, 5], ["a"]) == 7  # forgotten
