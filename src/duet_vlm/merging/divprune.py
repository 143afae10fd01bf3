"""DivPrune: tokens that differ as much as possible."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from .common import Encoded, Merge, selected


def divprune(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DivPrune (arXiv 2503.02175): K1 + K2 tokens that are far from each other, kept unchanged; scores are not used.

    The max-min diversity problem, solved greedily as in its section 3: first the token whose nearest neighbour is the
    farthest, then always the one farthest from all chosen so far, by the cosine distance of the features (of the
    encoder's output; the paper measures after the projector). Ties take the earlier token.
    """
    direction = normalize(encoded.features.float(), dim=-1)
    distance = 1 - direction @ direction.transpose(1, 2)
    itself = torch.eye(encoded.tokens, dtype=torch.bool, device=distance.device)
    gap = distance.masked_fill(itself, torch.inf).amin(-1)
    chosen: list[torch.Tensor] = []
    for step in range(dominant + contextual):
        place = gap.argmax(1, keepdim=True)
        chosen.append(place)
        reach = distance.gather(1, place[..., None].expand(-1, -1, encoded.tokens))[:, 0]
        gap = (reach if step == 0 else gap.minimum(reach)).scatter(1, place, -torch.inf)
    return selected(encoded, torch.cat(chosen, dim=1) if chosen else gap[:, :0].long())
