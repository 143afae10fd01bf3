"""How many requests fit into the same memory: with KV groups more than without, and as many as arithmetic says."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pytest

from recipes.serving import shapes
from recipes.serving.kv_groups import BLOCK, LAYER_BLOCK, LAYERS, VISUAL, fitting

MEMORY, TEXT = 2**30, 100
DUET: dict[str, Any] = {"preset": "duet", "tokens": 192}


def promised(visual: list[int], group: int) -> int:
    """So many requests; a block is one of `group` layers, whose tokens are as many as the first of them has."""
    layers = [ceil((visual[layer // group * group] + TEXT) / BLOCK) for layer in range(LAYERS)]
    usable = MEMORY // LAYER_BLOCK // group - 1  # vLLM keeps one of its blocks for itself
    return usable * group // sum(layers)


@pytest.mark.parametrize(
    ("duet", "group", "requests"),
    [(None, LAYERS, 2), (DUET, LAYERS, 4), (DUET | {"kv_groups": True}, LAYERS // 4, 6)],
    ids=["stock", "one group", "a group a stage"],
)
def test_requests_that_fit(tmp_path: Path, duet: dict[str, Any] | None, group: int, requests: int) -> None:
    found = fitting(shapes.write(tmp_path, LAYERS), duet, MEMORY, TEXT)
    # the drops split 32 layers in 16, 8 and 8
    visual = [VISUAL] * LAYERS if duet is None else [307] * 16 + [153] * 8 + [0] * 8
    assert found["visual_tokens_per_layer"] == visual
    assert found["layers_per_block"] == group
    assert found["requests"] == promised(visual, group) == requests
