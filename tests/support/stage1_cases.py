"""Images for stage 1 and the clusters of a naive loop."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from oracle import distinct

from duet_vlm.config.registry import STAGE1, at_encoder
from duet_vlm.stage1 import Encoded, Merge

many = settings(max_examples=25, deadline=None)

METHODS = {name: STAGE1[name].load() for name in at_encoder()}


def images(data: st.DataObject, batch: int = 2, reserved: int = 0) -> tuple[Encoded, int]:
    """A batch of images of a drawn grid, and how many tokens to retain."""
    rows, columns = data.draw(st.integers(1, 8), "rows"), data.draw(st.integers(2, 8), "columns")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    n = rows * columns
    features = torch.randn(batch, n, 6, generator=generator)
    keys = torch.randn(batch, n, 5, generator=generator)
    encoded = Encoded(distinct(generator, batch, n), keys, features, (rows, columns))
    return encoded, data.draw(st.integers(1, n - reserved), "K")


def clusters(found: Merge, row: int) -> dict[int, list[int]]:
    """anchor -> its members, sorted."""
    anchors = found.anchors[row].tolist()
    out: dict[int, list[int]] = {anchor: [] for anchor in anchors}
    for place, number in zip(found.members[row].tolist(), found.joins[row].tolist(), strict=True):
        out[anchors[number]].append(place)
    return {anchor: sorted(members) for anchor, members in out.items()}
