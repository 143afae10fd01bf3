"""What the greedy kernels choose, as JSON: in a process of its own, as Triton's interpreter is chosen once for all.

`TRITON_INTERPRET=1 python tests/support/kernel_choices.py`, or without that variable on a machine with a GPU.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from rules import RULES, image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from duet_vlm.tensors import greedy as module

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# tokens, width and how many are chosen; the last ones are odd, and more than a tile
CASES = ((2, 24, 1), (5, 24, 3), (16, 24, 8), (33, 40, 20), (67, 72, 30))


def special() -> dict[str, tuple[Tensor, Tensor, int]]:
    """Tokens that are alike in all bits, and tokens that are no numbers, all of which are chosen."""
    direction, a = image(0, 2, 21, 32)
    same = torch.zeros_like(direction)
    same[..., 3] = 1
    direction[0, 4, 2], direction[1, 7] = torch.nan, torch.inf
    return {"same": (same, torch.ones_like(a), 5), "broken": (direction, a, 21)}


def images() -> dict[str, tuple[Tensor, Tensor, int]]:
    cases = {f"{case}": (*image(number, 3, *case[:2]), case[2]) for number, case in enumerate(CASES)}
    return cases | special()


class Started(TorchDispatchMode):
    """How many operations are started."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def chosen(loop: Any) -> dict[str, dict[str, Any]]:
    """By rule and case: the places that a loop chooses."""
    module.alone = module.together = loop  # this process does nothing else
    module._accelerated = lambda direction, mapped: loop  # type: ignore[assignment]
    return {
        name: {
            case: module.greedy(rule(a.to(DEVICE)), direction.to(DEVICE), count).tolist()
            for case, (direction, a, count) in images().items()
        }
        for name, rule in RULES.items()
    }


def operations() -> list[int]:
    """How many operations the loop starts for 4 tokens and for 60."""
    direction, a = image(0, 2, 64, 128)
    counts = []
    for count in (4, 4, 60):
        with Started() as started:
            module.greedy(RULES["coverage"](a.to(DEVICE)), direction.to(DEVICE), count)
        counts.append(started.operations)
    return counts[1:]


if __name__ == "__main__":
    from duet_vlm.tensors.greedy_kernel import by_kernel

    places = chosen(by_kernel)
    print(json.dumps({"device": DEVICE, "places": places, "operations": operations()}))
