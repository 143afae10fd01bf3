"""PruMerge+: outliers of the CLS attention, an even supplement, and what is near to them."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from .common import Encoded, Merge, at, blocks, cosines, directions

NEIGHBOURS = 32  # tokens merged into each selected one


METHOD = Stage1Method(
    name="prumerge",
    paper="2403.15388",
    contextual="3/4",  # outliers are about 6% of an image, all that PruMerge+ keeps 25%
    needs=("scores", "keys"),
    scored=True,
    averages="always",
    order=5,
)


def prumerge(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """LLaVA-PruMerge+ (arXiv 2403.15388), section 3: select, supplement, cluster by keys, average by attention.

    The K1 tokens of the highest score and K2 others, evenly spread over the rest of the image; each becomes the mean,
    weighted by score, of itself and of the 32 unselected tokens whose keys are the most similar to its own (a token may
    be near to several). All are contextual tokens in image order.

    The paper lets an outlier test on the scores decide how many tokens an image gets; here the budget does, so that
    methods meet at equal counts.
    """
    order = encoded.scores.argsort(dim=1, descending=True, stable=True)
    rest = order[:, dominant:].sort(dim=1).values
    evenly = [(2 * i + 1) * rest.shape[1] // (2 * contextual) for i in range(contextual)]
    chosen = torch.cat([order[:, :dominant], rest[:, evenly]], dim=1).sort(dim=1).values
    is_chosen = torch.zeros_like(encoded.scores, dtype=torch.bool).scatter(1, chosen, True)
    left = is_chosen.long().argsort(dim=1, stable=True)[:, : encoded.tokens - chosen.shape[1]]
    direction, count = directions(encoded.keys), min(NEIGHBOURS, left.shape[1])
    others = at(direction, left)
    near = [
        cosines(at(direction, part), others).topk(count, dim=-1).indices.flatten(1)
        for part in blocks(chosen, left.shape[1])
    ]
    members = left.gather(1, torch.cat(near, dim=1))
    joins = torch.arange(chosen.shape[1], device=chosen.device).repeat_interleave(count).expand(len(chosen), -1)
    averaged = torch.ones_like(chosen, dtype=torch.bool)
    # a score can be no more than rounding error above zero, and a mean needs some weight
    weights = encoded.scores.clamp(min=torch.finfo(encoded.scores.dtype).tiny)
    return Merge(encoded.scores, chosen[:, :0], chosen, members, joins, weights, averaged)
