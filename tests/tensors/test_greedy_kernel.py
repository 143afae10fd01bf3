"""The greedy kernels choose what torch's loops do: on a GPU where there is one, in Triton's interpreter elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import RULES, image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")
from duet_vlm.tensors import greedy as module
from duet_vlm.tensors.greedy import greedy
from duet_vlm.tensors.greedy_kernel import by_kernel
from duet_vlm.tensors.greedy_loops import together

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
some = settings(max_examples=8, deadline=None)


def chosen(loop: Any, name: str, direction: Tensor, a: Tensor, count: int) -> list[list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "alone", loop)
        patch.setattr(module, "_accelerated", lambda direction, mapped: loop)
        places = greedy(RULES[name](a.to(DEVICE)), direction.to(DEVICE), count)
    assert places.dtype == torch.long
    return places.tolist()  # type: ignore[no-any-return]


@some
@given(st.data())
@pytest.mark.parametrize("name", RULES)
def test_the_kernel_chooses_what_the_loop_chooses(name: str, data: st.DataObject) -> None:
    tokens, width = data.draw(st.integers(2, 40), "N"), data.draw(st.integers(24, 40), "D")
    direction, a = image(data.draw(st.integers(0, 10**6), "seed"), 3, tokens, width)
    count = data.draw(st.integers(1, min(tokens, width) // 2 or 1), "K")
    expected = chosen(together, name, direction, a, count)
    assert chosen(by_kernel, name, direction, a, count) == expected


@pytest.mark.parametrize("name", RULES)
def test_the_kernel_chooses_all_of_them_and_what_is_no_number_last(name: str) -> None:
    direction, a = image(0, 2, 21, 32)
    direction[0, 4, 2], direction[1, 7] = torch.nan, torch.inf
    found = chosen(by_kernel, name, direction, a, 21)
    assert [sorted(row) for row in found] == [list(range(21))] * 2 and [row[-1] for row in found] == [4, 7]
    same = torch.zeros_like(direction)
    same[..., 3] = 1
    assert chosen(by_kernel, name, same, torch.ones_like(a), 5) == [[0, 1, 2, 3, 4]] * 2


class Started(TorchDispatchMode):
    """How many operations are started."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter starts operations of its own")
@pytest.mark.parametrize("name", RULES)
def test_no_more_operations_are_started_for_more_tokens(name: str) -> None:
    direction, a = image(0, 2, 64, 128)
    counts = []
    for count in (4, 60):
        with Started() as started:
            chosen(by_kernel, name, direction, a, count)
        counts.append(started.operations)
    assert counts[0] == counts[1]
