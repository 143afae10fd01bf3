"""Two methods of a user's own: the longest features, and a set of hidden states far from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from duet_vlm.stage1 import Encoded, Merge, selected
from duet_vlm.stage2.ranking import RankingInputs


def longest(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    best = encoded.features.norm(dim=-1).argsort(dim=1, descending=True, stable=True)
    return selected(encoded, best[:, : dominant + contextual])


def spread(inputs: RankingInputs) -> Tensor:
    """A set: of each image the token of the longest hidden state, then always the one farthest from all chosen."""
    chosen = torch.zeros_like(inputs.visual)
    for row, spans in enumerate(inputs.spans):
        for span in spans[spans > 0].unique().tolist():
            inside = (spans == span).nonzero()[:, 0]
            x = inputs.hidden[row, inside]
            gap = torch.full_like(x[:, 0], torch.inf)
            place = x.norm(dim=-1).argmax()
            for _ in range(int(inputs.limits[span])):
                chosen[row, inside[place]] = True
                gap = gap.minimum((x - x[place]).norm(dim=-1))
                gap[place] = -1
                place = gap.argmax()
    return chosen
