"""No N x N attention map is ever built, and the tower keeps its attention."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import duet_vlm
from duet_vlm import Drop, DuetConfig


class Largest(TorchDispatchMode):
    """Notes operations that give a square over this many tokens, and which attention ran."""

    def __init__(self, tokens: set[int]):
        super().__init__()
        self.tokens, self.squares, self.operations = tokens, [], set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.operations.add(function.name())
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and x.ndim >= 2 and x.shape[-1] == x.shape[-2] in self.tokens:
                self.squares.append((function.name(), tuple(x.shape)))
        return out


def test_neither_stage_builds_a_square_map() -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9), (5, 9)))
    length = batch["input_ids"].shape[1]
    config = DuetConfig(dominant=13, contextual=4, drops=[Drop(2, 0.5), Drop(4, 0.25)])
    sizes = {tiny.PATCHES, tiny.PATCHES + 1, length, length - 36 + 17, length - 36 + 8, length - 36 + 4}
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()), torch.no_grad(), Largest(sizes) as seen:
        model(**batch)
    assert not seen.squares
    assert any("scaled_dot_product" in name for name in seen.operations)
    with torch.no_grad(), Largest(sizes) as eager:
        model.set_attn_implementation("eager")
        model(**batch)
    assert eager.squares  # the check sees maps where there are some
