"""Frames in vLLM: counts, places and prompts, against the engine's own stage 1 and against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet_vlm import DuetConfig
from duet_vlm.families.placing import merged_in_place
from duet_vlm.stage1 import Encoded, merge
from duet_vlm.vllm import frames
from duet_vlm.vllm.frames import CHANNELS, Grid, Item, compressed, kept_of, shortened, widened, without_places

TEXT, IMAGE = 1, 9
SETTINGS = {
    "duet": DuetConfig(dominant=0.3, contextual=0.1),
    "counts": DuetConfig(dominant=30, contextual=5),
    "pool": DuetConfig(dominant=0.2, contextual=0.1, merging="pool", combine="mean"),
    "holov": DuetConfig(dominant=7, merging="holov"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", [(6, 8), (1, 3), (1, 1)])
@pytest.mark.parametrize("block", [1, 2**19], ids=["one by one", "together"])
def test_what_the_engine_keeps(name: str, shape: tuple[int, int], block: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(frames, "block_size", lambda device: block)
    config, tokens, generator = SETTINGS[name], shape[0] * shape[1], torch.Generator().manual_seed(0)
    scores = torch.rand(3, tokens, generator=generator)
    keys, features, others = (torch.randn(3, tokens, n, generator=generator) for n in (4, 6, 5))
    found = compressed(config, scores, keys, features, shape, others)
    assert found.shape == (3 * kept_of(config, tokens), 6 + 5 + CHANNELS)
    found, offsets = without_places(found)
    expected, places = [], []
    for frame in range(3):
        encoded = Encoded(scores[[frame]], keys[[frame]], features[[frame]], shape)
        full, sizes = merged_in_place(config, merge(config, encoded, dynamic=True), encoded.features)
        at = [place for place in range(tokens) if sizes[0, place] > 0]
        expected.append(torch.cat([full[0, at], others[frame, at]], dim=1))
        places += [[0, place // shape[1], place % shape[1]] for place in at]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-6, atol=1e-6)
    assert offsets.T.tolist() == places


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_places_are_exact_in_every_dtype(dtype: torch.dtype) -> None:
    shape = (11, 1801)  # the longest image that a processor lets pass is 200 times as wide as high
    tokens = shape[0] * shape[1]
    scores, features = torch.rand(1, tokens), torch.zeros(1, tokens, 2, dtype=dtype)
    made = compressed(DuetConfig(dominant=1.0), scores, features.float(), features, shape, features)
    offsets = without_places(made)[1]
    assert made.dtype == dtype
    places = offsets[1] * shape[1] + offsets[2]
    lost = scores.argmin()  # stage 1 leaves one token out at least
    assert torch.equal(places, torch.cat([torch.arange(lost), torch.arange(lost + 1, tokens)]))


@st.composite
def prompts(draw: st.DrawFn) -> list[tuple[int, list[int], int, int]]:
    """Texts before images and videos, and of these: texts before their frames, a frame's tokens before and after."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        full = draw(st.integers(1, 7))
        gaps = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
        found.append((draw(st.integers(0, 3)), gaps, full, draw(st.integers(1, full))))
    return found


@given(prompts(), st.integers(0, 4))
def test_a_prompt_as_it_would_be_without_stage_1(made: list[tuple[int, list[int], int, int]], behind: int) -> None:
    short: list[int] = []
    whole: list[int] = []
    items, places, spans = [], [], []

    def text(count: int) -> None:
        places.extend(range(len(whole), len(whole) + count))
        short.extend([TEXT] * count)
        whole.extend([TEXT] * count)

    for before, gaps, full, kept in made:
        text(before)
        offset, start = len(short), len(whole)
        for gap in gaps:
            text(gap)
            places.extend([len(whole)] * kept)
            short.extend([IMAGE] * kept)
            whole.extend([IMAGE] * full)
        items.append(Item(offset, len(short) - offset, IMAGE, full, kept))
        spans.append((start, len(whole) - start))
        assert shortened(whole[start:], IMAGE, full, kept) == short[offset:]
    text(behind)
    assert widened(short, items) == (whole, places, spans)


def test_grids_are_of_visual_tokens() -> None:
    grid = Grid.of(torch.tensor([3, 12, 16]).tolist(), 2)
    assert (grid.frames, grid.rows, grid.columns, grid.tokens) == (3, 6, 8, 48)
