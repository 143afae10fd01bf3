"""Stage 2 by a set: what a ranking chooses of every image, where one choice depends on another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .ranking import RankingInputs


@dataclass(frozen=True)
class Images:
    """Images and videos of a batch that have equally many tokens left, and of which a drop keeps equally many.

    Attributes:
        rows: (I, 1) long, the row of each.
        columns: (I, N) long, where their tokens stand among the tokens present.
        count: how many of the N the drop keeps.
    """

    rows: Tensor
    columns: Tensor
    count: int

    def of(self, x: Tensor) -> Tensor:
        """What x (B, n) or (B, n, D) says of their tokens: (I, N) or (I, N, D)."""
        return x[self.rows, self.columns]


def select(inputs: RankingInputs, choose: Callable[[Images], Tensor]) -> Tensor:
    """Choose in every image and every video for itself: the set that a ranking may return instead of scores.

    Reads on the host where the images stand and how many tokens of each are kept.

    Args:
        inputs: what the ranking is given.
        choose: `(images) -> (I, count)` long, which of their N tokens stay; called once for images of equal size.

    Returns:
        (B, n) bool, as many tokens of every image as `inputs.limits` says, and no text.

    Example:
        >>> import torch
        >>> from duet_vlm.stage2.selection import select
        >>> def longest(inputs):
        ...     lengths = inputs.hidden.norm(dim=-1)
        ...     return select(inputs, lambda images: images.of(lengths).topk(images.count).indices)
    """
    chosen = torch.zeros_like(inputs.visual)
    device, limits = chosen.device, inputs.limits.tolist()
    sizes: dict[tuple[int, int], list[tuple[int, list[int]]]] = defaultdict(list)
    for row, spans in enumerate(inputs.spans.tolist()):
        found: dict[int, list[int]] = defaultdict(list)
        for column, span in enumerate(spans):
            if span:
                found[span].append(column)
        for span, columns in found.items():
            sizes[len(columns), limits[span]].append((row, columns))
    for (_, count), alike in sizes.items():
        rows = torch.tensor([[row] for row, _ in alike], device=device)
        images = Images(rows, torch.tensor([columns for _, columns in alike], device=device), count)
        if count:
            chosen[rows, images.columns.gather(1, choose(images))] = True
    return chosen
