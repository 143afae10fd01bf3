"""Stage 1, V2V: which visual tokens are dominant, and how the rest are merged into contextual ones.

Pure tensors, all images of a batch at once; no loops, nothing read on the host. METHOD: "Stage 1"; VisionZip is
arXiv 2412.04467. A method is one function `(scores, metric, dominant, contextual, cluster_width) -> Merge`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot


@dataclass
class Merge:
    """What becomes of one batch of images: places (patches in raster order, without CLS) of B images.

    Attributes:
        scores: (B, N) float, as ranked.
        dominant: (B, K1) long, kept unchanged, in image order.
        anchors: (B, K2) long, in anchor order.
        members: (B, P) long, merged into an anchor.
        joins: (B, P) long, the number of the anchor that each member joins.
    """

    scores: Tensor
    dominant: Tensor
    anchors: Tensor
    members: Tensor
    joins: Tensor

    def contextual(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, K2, D): each anchor plus the mean of its members, or the anchor alone if it has none."""
        anchors = at(x, self.anchors)
        if self.members.shape[1] == 0 or self.anchors.shape[1] == 0:
            return anchors
        wide = torch.promote_types(x.dtype, torch.float32)  # sums in half precision lose the small members
        belongs = one_hot(self.joins, self.anchors.shape[1]).to(wide).transpose(1, 2)
        mean = belongs @ at(x, self.members).to(wide) / belongs.sum(-1, keepdim=True).clamp(min=1)
        return (anchors.to(wide) + mean).to(x.dtype)

    def retained(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, K1 + K2, D): dominant tokens in image order, then contextual ones in anchor order."""
        return torch.cat([at(x, self.dominant), self.contextual(x)], dim=1)

    @property
    def places(self) -> Tensor:
        """(B, K1 + K2) long: the place of every retained token, a contextual one's being its anchor's."""
        return torch.cat([self.dominant, self.anchors], dim=1)


def at(x: Tensor, places: Tensor) -> Tensor:
    """Gather (B, N, D) or (B, N) at places (B, k)."""
    return x.gather(1, places if x.ndim == 2 else places[..., None].expand(-1, -1, x.shape[-1]))


def duet(scores: Tensor, metric: Tensor, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DUET-VLM's local clusters: a pool of `cluster_width * contextual` runners-up, anchors spaced in score order.

    Args:
        scores: (B, N) salience of every visual token.
        metric: (B, N, d) key vectors, averaged over heads; similarity is their cosine.
        dominant: K1, tokens kept unchanged.
        contextual: K2, tokens merged from the pool.
        cluster_width: w; what ranks below the pool is discarded.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    pool = order[:, dominant : dominant + min(cluster_width * contextual, order.shape[1] - dominant)]
    return _cluster(scores, metric, order[:, :dominant], pool, contextual)


def visionzip(scores: Tensor, metric: Tensor, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """VisionZip's global clusters: every other token is in the pool, anchors evenly spaced in image order.

    Takes what `duet` takes; `cluster_width` has no meaning here.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    pool = order[:, dominant:].sort(dim=1).values if contextual else order[:, :0]
    return _cluster(scores, metric, order[:, :dominant], pool, contextual)


def random(scores: Tensor, metric: Tensor, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """The baseline every method must beat: `duet` with random scores, from torch's global generator."""
    return duet(torch.rand_like(scores), metric, dominant, contextual, cluster_width)


METHODS: dict[str, Callable[[Tensor, Tensor, int, int, int], Merge]] = {
    "duet": duet,
    "visionzip": visionzip,
    "random": random,
}


def _cluster(scores: Tensor, metric: Tensor, dominant: Tensor, pool: Tensor, contextual: int) -> Merge:
    """Every pool token that is no anchor joins the anchor whose key is most similar."""
    step = max(1, pool.shape[1] // contextual) if contextual else 1
    # which columns are anchors depends on sizes only
    anchors = pool[:, : step * contextual : step]
    others = [i for i in range(pool.shape[1]) if i % step or i >= step * contextual]
    members = pool[:, others]
    direction = normalize(metric.float(), dim=-1)
    if contextual and others:
        joins = (at(direction, members) @ at(direction, anchors).transpose(1, 2)).argmax(-1)
    else:
        joins = torch.zeros_like(members)
    return Merge(scores, dominant.sort(dim=1).values, anchors, members, joins)
