"""Stage 1 methods that are shown whole videos, each against a naive loop of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import cosine, distinct
from stage1_cases import METHODS, clusters, many

from duet_vlm import DuetConfig
from duet_vlm.config.registry import STAGE1
from duet_vlm.stage1 import Encoded, merge, shown_together
from duet_vlm.stage1.cells import cells

WHOLE = [name for name, row in STAGE1.items() if row.whole_videos]


def video(data: st.DataObject) -> tuple[Encoded, int]:
    """A video in which most tokens stay much as they were or move, and how many to retain."""
    frames, grid = data.draw(st.integers(1, 6), "T"), (data.draw(st.integers(1, 3)), data.draw(st.integers(2, 4)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    n = grid[0] * grid[1]
    shown = [torch.randn(n, 6, generator=generator)]
    for _ in range(frames - 1):
        moved = (
            shown[-1][torch.randperm(n, generator=generator)]
            if torch.rand((), generator=generator) < 0.3
            else shown[-1]
        )
        new = torch.rand(n, 1, generator=generator) < 0.3
        noise = 0.4 * torch.randn(n, 6, generator=generator)
        shown.append(torch.where(new, torch.randn(n, 6, generator=generator), moved + noise))
    x = torch.cat(shown)[None]
    encoded = Encoded(distinct(generator, 1, frames * n), x[..., :4], x, grid, frames)
    return encoded, data.draw(st.integers(1, frames * n), "K")


@many
@given(st.data())
def test_evs(data: st.DataObject) -> None:
    encoded, k = video(data)
    x, n = encoded.features[0].double().tolist(), encoded.tokens // encoded.frames
    found = METHODS["evs"](encoded, k, 0, 4).dominant[0].tolist()
    if k <= n:
        assert found == sorted(cells(n, encoded.grid, k)[0])
        return
    change = {i: 1 - cosine(x[i], x[i - n]) for i in range(n, len(x))}
    assert found == sorted([*range(n), *sorted(change, key=lambda i: -change[i])[: k - n]])


@many
@given(st.data())
def test_vidcom2(data: st.DataObject) -> None:
    encoded, k = video(data)
    x, frames = encoded.features[0].double(), encoded.frames
    n = len(x) // frames
    steady = sorted(sorted(range(6), key=lambda c: float(x[:, c].var(correction=0)))[:3])
    units = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in x[:, steady].tolist()]
    shown = [units[t * n : t * n + n] for t in range(frames)]
    to_frame = [[similar(u, mean(frame)) for u in frame] for frame in shown]
    to_video = [[similar(u, mean(units)) for u in frame] for frame in shown]
    out = [-sum(row) / n for row in to_video]
    weights = [math.exp((value - max(out)) / 0.01) for value in out]
    budgets = [min(max(round(k / frames * (1 + w / sum(weights) - 1 / frames)), 1), n) for w in weights]
    typical = [a + b for p, q in zip(to_frame, to_video, strict=True) for a, b in zip(p, q, strict=True)]
    kept: list[int] = []
    for t, budget in enumerate(budgets):
        kept += sorted(range(t * n, t * n + n), key=lambda i: typical[i])[:budget]
    kept = sorted(kept, key=lambda i: typical[i])[:k]
    kept += sorted({*range(len(x))} - {*kept}, key=lambda i: typical[i])[: k - len(kept)]
    assert METHODS["vidcom2"](encoded, k, 0, 4).dominant[0].tolist() == sorted(kept)


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def similar(a: list[float], b: list[float]) -> float:
    distance = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    return sum(math.exp(-distance / (2 * variance)) for variance in (1 / 8, 1 / 4, 1 / 2, 1, 2))


@many
@given(st.data())
def test_flashvid(data: st.DataObject) -> None:
    encoded, k = video(data)
    k2 = data.draw(st.integers(0, k), "K2")
    x, scores, frames = encoded.features[0].double().tolist(), encoded.scores[0].tolist(), encoded.frames
    n, found = len(x) // frames, METHODS["flashvid"](encoded, k - k2, k2, 4)
    chosen: list[int] = []
    for t in range(frames):
        mine: list[int] = []
        for _ in range((k - k2) // frames + (t < (k - k2) % frames)):
            left = [i for i in range(t * n, t * n + n) if i not in mine]
            gap = {i: min([min(1 - cosine(x[i], x[j]), 1) for j in mine] + [1]) for i in left}
            mine.append(max(left, key=lambda i: scores[i] * gap[i]))
        chosen += mine
    assert found.dominant[0].tolist() == sorted(chosen)
    rest = [i for i in range(len(x)) if i not in chosen]
    links = []
    for i in rest:
        before = [j for j in rest if j // n == i // n - 1]
        if before:
            best = max(before, key=lambda j: cosine(x[i], x[j]))
            links.append((cosine(x[i], x[best]), i, best))
    parent = {i: j for c, i, j in sorted(links, reverse=True)[: len(rest) - k2] if c > 0.8}
    trees: dict[int, list[int]] = {i: [] for i in rest if i not in parent}
    for i in parent:
        root = i
        while root in parent:
            root = parent[root]
        trees[root].append(i)
    held = sorted(trees, key=lambda i: -sum(scores[j] for j in [i, *trees[i]]))[:k2]
    assert clusters(found, 0) == {i: sorted(trees[i]) for i in sorted(held)}
    tokens = found.contextual(encoded.features)[0]
    for number, root in enumerate(sorted(held)):
        whole = encoded.features[0, [root, *trees[root]]].mean(0)
        torch.testing.assert_close(tokens[number], whole, atol=1e-5, rtol=1e-5)


def test_trees_run_through_frames_and_are_cut_where_they_are_too_few() -> None:
    """Three things, each alike in all of five frames, of which a different one moves."""
    things = torch.eye(3, 6)
    frames = [things[order] for order in ([0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 0, 2], [2, 0, 1])]
    x = torch.cat(frames)[None] + 1e-3 * torch.randn(1, 15, 6, generator=torch.Generator().manual_seed(0))
    encoded = Encoded(torch.full((1, 15), 0.5), x, x, (1, 3), 5)
    three = METHODS["flashvid"](encoded, 0, 3, 4)
    assert clusters(three, 0) == {0: [3, 7, 10, 13], 1: [4, 6, 9, 14], 2: [5, 8, 11, 12]}
    assert three.sizes.tolist() == [[5, 5, 5]]
    for count in range(3, 16):
        found = METHODS["flashvid"](encoded, 0, count, 4)
        assert found.sizes.sum() == 15 and found.places.shape == (1, count)


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_is_a_video_of_one_frame(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 24, 6, generator=generator)
    scores = torch.rand(3, 24, generator=generator)
    together = METHODS[name](Encoded(scores, x, x, (4, 6)), 7, 3, 4)
    assert together.members.numel() == 0 and together.places.shape == (3, 10)
    for row in range(3):
        alone = METHODS[name](Encoded(scores[[row]], x[[row]], x[[row]], (4, 6), 1), 7, 3, 4)
        assert torch.equal(alone.places[0], together.places[row])
    if name == "evs":
        assert torch.equal(together.places, METHODS["uniform"](Encoded(scores, x, x, (4, 6)), 7, 3, 4).places)


@pytest.mark.parametrize("name", METHODS)
def test_a_video_is_shown_whole_or_frame_by_frame(name: str) -> None:
    x = torch.randn(1, 24, 6, generator=torch.Generator().manual_seed(0))
    encoded = Encoded(x[..., 0], x[..., :3], x, (2, 3), 4)
    config = DuetConfig(3, 1, merging=name)
    parts = shown_together(config, encoded)
    if name in WHOLE:
        assert parts == [encoded] and merge(config, encoded).places.shape == (1, 16)
        return
    assert [part.frames for part in parts] == [1] * 4 and all(part.grid == (2, 3) for part in parts)
    for field in ("scores", "keys", "features"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts], 1), getattr(encoded, field))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_decides_as_the_same_numbers_in_float32(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 60, 16, generator=generator)
    x[:, 12:] = x[:, :-12] + 0.3 * x[:, 12:]
    x, scores = x.to(dtype), torch.rand(1, 60, generator=generator)
    half, full = (METHODS[name](Encoded(scores, y, y, (3, 4), 5), 14, 6, 4) for y in (x, x.float()))
    assert torch.equal(half.places, full.places) and torch.equal(half.members, full.members)


def test_frames_that_stand_out_get_more_places() -> None:
    generator = torch.Generator().manual_seed(0)
    scene, other = torch.randn(1, 16, 8, generator=generator), torch.randn(1, 16, 8, generator=generator)
    x = torch.cat([scene, scene, other, scene], 1) + 0.05 * torch.randn(1, 64, 8, generator=generator)
    encoded = Encoded(torch.rand(1, 64, generator=generator), x, x, (4, 4), 4)

    def counts(name: str) -> list[int]:
        places: Any = METHODS[name](encoded, 24, 0, 4).places[0]
        return [int((places // 16 == frame).sum()) for frame in range(4)]

    first, second, third, fourth = counts("evs")
    assert first == 16 and third + fourth == 8 and second == 0
    assert counts("vidcom2")[2] == max(counts("vidcom2")) > 6
    assert counts("flashvid") == [6, 6, 6, 6]
