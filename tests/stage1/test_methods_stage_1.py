"""Every stage 1 method against a naive loop of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import cosine
from stage1_cases import METHODS, clusters, images, many

from duet_vlm.stage1 import Encoded
from duet_vlm.stage1.cells import cells
from duet_vlm.tensors.content_random import draw


@many
@given(st.data())
def test_cells_are_equal_rectangles_that_cover_the_image(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    count = data.draw(st.integers(1, rows * columns))
    middles, owners = cells(rows * columns, (rows, columns), count)
    assert len(middles) == count and set(owners) == set(range(count))
    heights, widths = [], []
    for cell in range(count):
        inside = [divmod(place, columns) for place, owner in enumerate(owners) if owner == cell]
        assert owners[middles[cell]] == cell
        height = max(r for r, _ in inside) - min(r for r, _ in inside) + 1
        width = max(c for _, c in inside) - min(c for _, c in inside) + 1
        assert len(inside) == height * width
        row, column = divmod(middles[cell], columns)
        for middle, values in ((row, [r for r, _ in inside]), (column, [c for _, c in inside])):
            assert abs(middle - (min(values) + max(values)) / 2) <= 0.5
        heights.append(height)
        widths.append((min(r for r, _ in inside), width))
    assert max(heights) - min(heights) <= 1
    for top in {top for top, _ in widths}:
        band = [width for t, width in widths if t == top]
        assert max(band) - min(band) <= 1


@pytest.mark.parametrize(("count", "expected"), [(4, [9, 13, 41, 45]), (1, [27]), (64, list(range(64)))])
def test_uniform_places_on_a_square(count: int, expected: list[int]) -> None:
    middles, _ = cells(64, (8, 8), count)
    assert list(middles) == expected


@many
@given(st.data())
def test_uniform_and_pool(data: st.DataObject) -> None:
    encoded, k = images(data)
    k2 = data.draw(st.integers(0, k), "K2")
    middles, owners = cells(encoded.tokens, encoded.grid, k)
    found = METHODS["uniform"](encoded, k - k2, k2, 4)
    assert found.dominant.tolist() == [sorted(middles)] * 2 and found.anchors.shape[1] == found.members.shape[1] == 0
    pooled = METHODS["pool"](encoded, k - k2, k2, 4).retained(encoded.features)
    for row in range(2):
        for cell in range(k):
            inside = [encoded.features[row, place] for place, owner in enumerate(owners) if owner == cell]
            torch.testing.assert_close(pooled[row, cell], sum(inside) / len(inside), atol=1e-5, rtol=1e-5)


@many
@given(st.data())
def test_prumerge(data: st.DataObject) -> None:
    encoded, k = images(data)
    k2 = data.draw(st.integers(0, k), "K2")
    found = METHODS["prumerge"](encoded, k - k2, k2, 4)
    tokens = found.retained(encoded.features)
    for row in range(2):
        scores, keys = encoded.scores[row].tolist(), encoded.keys[row].tolist()
        outliers = sorted(range(len(scores)), key=lambda i: -scores[i])[: k - k2]
        rest = [i for i in range(len(scores)) if i not in outliers]
        supplement = [rest[int((i + 0.5) * len(rest) / k2)] for i in range(k2)]
        chosen = sorted(outliers + supplement)
        assert len(set(chosen)) == k and found.anchors[row].tolist() == chosen
        left = [i for i in range(len(scores)) if i not in chosen]
        for number, anchor in enumerate(chosen):
            near = sorted(left, key=lambda i: -cosine(keys[i], keys[anchor]))[:32]
            assert clusters(found, row)[anchor] == sorted(near)
            cluster = [anchor, *near]
            total = sum(scores[i] for i in cluster)
            mean = sum(encoded.features[row, i] * (scores[i] / total) for i in cluster)
            torch.testing.assert_close(tokens[row, number], mean, atol=1e-5, rtol=1e-5)


@many
@given(st.data())
def test_divprune(data: st.DataObject) -> None:
    encoded, k = images(data)
    found = METHODS["divprune"](encoded, k, 0, 4)
    for row in range(2):
        x = encoded.features[row].double().tolist()
        distance = [[1 - cosine(a, b) for b in x] for a in x]
        everyone = range(len(x))
        chosen = [max(everyone, key=lambda i: min(distance[i][j] for j in everyone if j != i))]
        gaps = [min(distance[i][j] for j in everyone if j != i) for i in everyone]
        # two tokens that are each other's nearest are equally far: the earlier one, whatever rounding says
        chosen = [min(i for i in everyone if math.isclose(gaps[i], gaps[chosen[0]], rel_tol=1e-9))]
        while len(chosen) < k:
            left = [i for i in everyone if i not in chosen]
            chosen.append(max(left, key=lambda i: min(distance[i][j] for j in chosen)))
        assert found.dominant[row].tolist() == sorted(chosen)


@many
@given(st.data())
def test_holov(data: st.DataObject) -> None:
    encoded, k = images(data)
    found = METHODS["holov"](encoded, k, 0, 4)
    assert encoded.grid is not None
    _, owners = cells(encoded.tokens, encoded.grid, min(16, encoded.tokens))
    for row in range(2):
        x, scores = encoded.features[row].double().tolist(), encoded.scores[row].tolist()
        regions = [[i for i, owner in enumerate(owners) if owner == r] for r in range(max(owners) + 1)]
        variety = [0.0] * len(x)
        for region in regions:
            for i in region:
                near = [cosine(x[i], x[j]) for j in region if j != i]
                variety[i] = sum((c - sum(near) / len(near)) ** 2 for c in near) / len(near) if near else 0.0
        good = [a + b for a, b in zip(scaled(scores), scaled(variety), strict=True)]
        ranked = [sorted(region, key=lambda i: -good[i]) for region in regions]
        mean = [sum(good[i] for i in region) / len(region) for region in regions]
        given, chosen = [0] * len(regions), []
        while len(chosen) < k:
            open_ = [r for r in range(len(regions)) if given[r] < len(regions[r])]
            r = max(open_, key=lambda r: mean[r] / (given[r] + 1))
            chosen.append(ranked[r][given[r]])
            given[r] += 1
        assert found.dominant[row].tolist() == sorted(chosen)


def scaled(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def test_holov_serves_every_region_that_is_worth_it() -> None:
    """One blazing corner takes everything by score alone, but not here."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1, 256, generator=generator) * 0.1
    corner = [r * 16 + c for r in range(4) for c in range(4)]
    scores[0, corner] += 1
    x = torch.randn(1, 256, 8, generator=generator)
    _, owners = cells(256, (16, 16), 16)
    chosen = METHODS["holov"](Encoded(scores, x, x, (16, 16)), 32, 0, 4).dominant[0].tolist()
    assert len({owners[i] for i in chosen}) == 16
    assert set(METHODS["duet"](Encoded(scores, x, x, (16, 16)), 16, 0, 4).dominant[0].tolist()) == set(corner)


def test_random_is_seeded_and_belongs_to_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 49, 8, generator=generator)
    encoded = Encoded(torch.rand(3, 49, generator=generator), x, x, (7, 7))

    def choose(which: Any, seed: int = 3) -> list[list[int]]:
        torch.manual_seed(seed)
        return METHODS["random"](Encoded(encoded.scores[which], x[which], x[which], (7, 7)), 10, 2, 4).places.tolist()

    together = choose([0, 1, 2])
    assert together[0] != together[1] != together[2]
    assert together == choose([0, 1, 2]) == [choose([i])[0] for i in range(3)]
    assert together != choose([0, 1, 2], seed=4)
    noisy = x + 1e-6 * torch.randn(x.shape, generator=generator)
    torch.manual_seed(3)
    assert METHODS["random"](Encoded(encoded.scores, x, noisy, (7, 7)), 10, 2, 4).places.tolist() == together
    state = torch.get_rng_state()
    METHODS["random"](encoded, 10, 2, 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_numbers_are_uniform() -> None:
    torch.manual_seed(0)
    numbers = draw(torch.arange(2000)[:, None], 50)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.005 and abs(float(numbers.var()) - 1 / 12) < 0.001
    counts = numbers.mul(10).long().flatten().bincount(minlength=10)
    assert ((counts - 10_000).abs() < 4 * 95).all()  # four standard deviations
    for rows, columns in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        pairs = torch.stack([rows.flatten(), columns.flatten()])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.015


@many
@given(st.data())
def test_every_method_retains_what_is_asked(data: st.DataObject) -> None:
    encoded, k = images(data)
    k2 = data.draw(st.integers(0, k), "K2")
    for name, method in METHODS.items():
        found = method(encoded, k - k2, k2, data.draw(st.integers(1, 6), "w"))
        tokens = found.retained(encoded.features)
        assert tokens.shape == (2, k, 6) and bool(tokens.isfinite().all()), name
        for row, places in enumerate(found.places.tolist()):
            assert len(set(places)) == k, name
            merged = [1 + len(clusters(found, row)[anchor]) for anchor in found.anchors[row].tolist()]
            assert found.sizes[row].tolist() == [1] * found.dominant.shape[1] + merged, name
        one = method(Encoded(encoded.scores[1:], encoded.keys[1:], encoded.features[1:], encoded.grid), k - k2, k2, 4)
        if name not in ("duet", "random"):  # these depend on w
            assert one.places.tolist() == found.places[1:].tolist(), name
