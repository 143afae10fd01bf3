"""Small images and prompts for every method and ranking, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from duet_vlm import DuetConfig
from duet_vlm.config.registry import RANKINGS, STAGE1, at_encoder
from duet_vlm.stage1 import Encoded, merge
from duet_vlm.stage2 import ranking
from duet_vlm.stage2.attention import attention
from duet_vlm.tensors.streamed import Places, Softmax, column_sums

ROWS, GRID, TEXT = 3, (6, 8), 5

TOKENS = GRID[0] * GRID[1]

CONFIGS = {
    **{name: DuetConfig(9, 3, merging=name) for name in at_encoder()},
    "diverse": DuetConfig(9, 3, diverse=True),
    "mean": DuetConfig(9, 3, combine="mean"),
    **{
        f"rest of {name}": DuetConfig(9, 3, cluster_width=2, merging=name, rest=True)
        for name in at_encoder()
        if STAGE1[name].discards
    },
}

RANKED: dict[str, Callable[[ranking.RankingInputs], Tensor]] = {
    **{name: partial(ranking.ranked, row) for name, row in RANKINGS.items()},
    "no debias": lambda seen: attention(replace(seen, average=None)),
    "average": lambda seen: ranking.average_token(seen.hidden, seen.visual),
    "received": lambda seen: column_sums(seen.query, seen.key[:, :, :TEXT], seen.softmax),
}


def images(dtype: torch.dtype = torch.float32, rows: int = ROWS) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    scores, keys, features = (torch.rand(rows, TOKENS, *more, generator=generator) for more in ((), (8,), (16,)))
    return Encoded(scores, keys - 0.4, (features - 0.4).to(dtype), GRID)


def entrance(dtype: torch.dtype = torch.float32, rows: int = ROWS) -> ranking.RankingInputs:
    generator = torch.Generator().manual_seed(0)
    n, past = TOKENS + TEXT, 4

    def some(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator).to(dtype)

    seen = torch.arange(past + n).expand(rows, -1).clone()
    seen[0, :2], seen[-1, 1] = -1, -1
    asked = torch.arange(past + TOKENS, past + n).expand(rows, -1).clone()
    asked[1, 1] = -1
    visual = torch.arange(n).expand(rows, -1) < TOKENS
    return ranking.RankingInputs(
        query=some(4, TEXT, 8),
        key=some(2, past + n, 8),
        places=Places(asked, seen),
        softmax=Softmax(8**-0.5),
        hidden=some(n, 16),
        questions=some(TEXT, 16),
        visual=visual,
        spans=visual * torch.arange(1, rows + 1)[:, None],
        limits=torch.tensor([0, *[TOKENS // 2] * rows]),
        average=some(2, n, 8),
        log_sizes=torch.ones(rows, past + n).mul(3).log(),
    )


def row(x: Any, number: int) -> Any:
    """One row of a dataclass of tensors."""
    changed = {}
    for name in (field.name for field in fields(x)):
        value = getattr(x, name)
        if isinstance(value, Tensor) and name != "limits":  # which is of all images
            changed[name] = value[number : number + 1]
        elif isinstance(value, Places):
            changed[name] = row(value, number)
    return replace(x, **changed)


def outcome(config: DuetConfig, encoded: Encoded) -> dict[str, Tensor]:
    found = merge(config, encoded)
    return {"places": found.places, "members": found.members, "joins": found.joins, "sizes": found.sizes,
            "retained": found.retained(encoded.features)}  # fmt: skip
