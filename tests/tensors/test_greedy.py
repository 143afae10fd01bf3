"""The greedy loop: by rules against naive loops, on the host and all at once, with a map of cosines and without."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from greedy_loops import determinant
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cosine
from rules import RULES, image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from duet_vlm.tensors import greedy as module
from duet_vlm.tensors.greedy import greedy
from duet_vlm.tensors.greedy_loops import together
from duet_vlm.tensors.greedy_rules import Determinant, Rule, Worth
from duet_vlm.tensors.streamed import block_size

many = settings(max_examples=25, deadline=None)

WAYS = {  # how the same is computed
    "host": {},
    "host, no map": {"block_size": lambda device: 50},
    "at once": {"alone": together},
    "at once, no map": {"alone": together, "block_size": lambda device: 50},
}


def chosen(way: str, rule: Rule, direction: Tensor, count: int) -> list[list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(module, name, value)
        return greedy(rule, direction, count).tolist()  # type: ignore[no-any-return]


@many
@given(st.data())
@pytest.mark.parametrize("way", WAYS)
def test_a_determinant_is_as_large_as_one_more_token_makes_it(way: str, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(2, 14), "N")
    direction, a = image(data.draw(st.integers(0, 10**6), "seed"), 2, tokens, 16)
    count = data.draw(st.integers(1, tokens), "K")
    found = chosen(way, Determinant(quality=a), direction, count)
    for row in range(2):
        x = direction[row].double().tolist()
        similarity = [[cosine(one, other) for other in x] for one in x]
        assert found[row] == determinant(a[row].double().tolist(), similarity, count)


@many
@given(st.data())
@pytest.mark.parametrize("name", RULES)
def test_every_way_chooses_the_same(name: str, data: st.DataObject) -> None:
    """A batch of images, and each of them alone."""
    tokens, width = data.draw(st.integers(2, 40), "N"), data.draw(st.integers(20, 40), "D")
    direction, a = image(data.draw(st.integers(0, 10**6), "seed"), 3, tokens, width)
    count = data.draw(st.integers(1, min(tokens, width) // 2 or 1), "K")
    expected = chosen("host", RULES[name](a), direction, count)
    for way in WAYS:
        assert chosen(way, RULES[name](a), direction, count) == expected, way
    for row in range(3):
        part = slice(row, row + 1)
        assert chosen("host", RULES[name](a[part]), direction[part], count) == expected[part]


def best_left(values: Tensor, taken: Tensor) -> Tensor:
    lowest = torch.finfo(values.dtype).min
    return values.nan_to_num(nan=lowest, neginf=lowest).masked_fill(taken, -torch.inf).argmax(1, keepdim=True)


def step_by_step(
    first: Tensor, count: int, distance: Callable[[Tensor], Tensor], weight: Tensor | None = None
) -> Tensor:
    """Farthest-first as it was before there was one loop for all rules: a row of cosines for each chosen token."""
    gap, taken = first, torch.zeros_like(first, dtype=torch.bool)
    found = [taken[:, :0].long()]
    for step in range(count):
        if step:
            reach = distance(found[-1])
            gap = reach if step == 1 else gap.minimum(reach)
        place = best_left(gap if weight is None else weight * gap, taken)
        taken = taken.scatter(1, place, True)
        found.append(place)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_farthest_first_chooses_what_it_chose_row_by_row(seed: int) -> None:
    direction, a = image(seed, 3, 196, 48)
    similarity = direction @ direction.transpose(1, 2)

    def distance(place: Tensor) -> Tensor:
        picked = direction.gather(1, place[..., None].expand(-1, -1, 48))
        return 1 - (picked @ direction.transpose(1, 2))[:, 0]

    gaps = 1 - similarity.masked_fill(torch.eye(196, dtype=torch.bool), -torch.inf).amax(-1)
    old = step_by_step(gaps, 90, distance)
    assert torch.equal(greedy(Worth(distance=1.0, lonely=True), direction, 90).sort().values, old.sort().values)
    old = step_by_step(torch.ones_like(a), 90, lambda place: distance(place).clamp(0, 1), weight=a)
    assert torch.equal(greedy(Worth(distance=a, floor=0.0), direction, 90), old)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RULES)
def test_ties_take_the_earlier_place_and_what_is_no_number_the_last(name: str, way: str) -> None:
    direction, a = image(0, 2, 12, 16)
    same = torch.zeros_like(direction)
    same[..., 3] = 1  # whose cosines have no rounding
    assert chosen(way, RULES[name](torch.ones_like(a)), same, 5) == [[0, 1, 2, 3, 4]] * 2
    direction[0, 4, 2], direction[1, 7] = torch.nan, torch.inf
    found = chosen(way, RULES[name](a), direction, 12)
    assert [sorted(row) for row in found] == [list(range(12))] * 2 and [row[-1] for row in found] == [4, 7]


@pytest.mark.parametrize("name", RULES)
def test_nothing_and_nobody_can_be_chosen(name: str) -> None:
    direction, a = image(0, 2, 12, 16)
    assert greedy(RULES[name](a), direction, 0).shape == (2, 0)
    assert greedy(RULES[name](a[:0]), direction[:0], 5).shape == (0, 5)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that anything made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, Tensor):
                self.numbers = max(self.numbers, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", RULES)
def test_16000_tokens_need_no_map(name: str, count: int) -> None:
    """A map is 256 million numbers, a gigabyte. Neither torch nor numpy holds a hundredth of it, but for a factor."""
    tokens, width = 16000, 8
    direction, a = image(0, 1, tokens, width)
    rule = RULES[name](a)
    tracemalloc.start()
    with Largest() as largest:
        found = greedy(rule, direction, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.unique().numel() == count
    assert largest.numbers <= max(block_size(direction.device), tokens * width)
    factor = count * tokens * 4 if name == "determinant" else 0
    assert peak <= factor + 12 * 2**20


def test_a_map_is_held_where_it_is_small() -> None:
    direction, a = image(0, 1, 576, 1024)
    with Largest() as largest:
        greedy(Worth(cover=a, floor=0.0), direction, 300)
    assert largest.numbers == 576 * 1024 >= 576**2
