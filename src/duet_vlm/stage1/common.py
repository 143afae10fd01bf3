"""What stage 1 is given and what it decides. Pure tensors, all images of a batch at once; nothing read on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from ..tensors.covering import enough
from ..tensors.greedy import greedy
from ..tensors.greedy_rules import Stop, Worth
from ..tensors.streamed import block_size, exact, wide


@dataclass
class Encoded:
    """One batch of B images of equal size as the vision encoder hands it over: N tokens in raster order, without CLS.

    A method whose row says `whole_videos` is shown a video as one of these: B is 1, and N counts the tokens of all T
    frames, which follow each other. It retains as many in all as it is asked for, whichever frames they are in.

    Attributes:
        scores: (B, N) float, the salience of every token; docs/method.md, 1.1.
        keys: (B, N, d) float, key vectors of the scoring layer, averaged over heads; similarity is their cosine.
        features: (B, N, D) what will be merged.
        grid: (rows, columns) of the N tokens, in a video of one frame's N / T, or None where they form no rectangle.
        frames: T; 1 for images.
        stop: when a method that takes tokens one by one has enough; B is 1 then, as images differ. None for never.
    """

    scores: Tensor
    keys: Tensor
    features: Tensor
    grid: tuple[int, int] | None = None
    frames: int = 1
    stop: Stop | None = None

    @property
    def tokens(self) -> int:
        """N."""
        return self.scores.shape[1]


@dataclass
class Merge:
    """What becomes of one batch: places (visual tokens in raster order, without CLS) of B images, or of one video.

    Attributes:
        scores: (B, N) float, as ranked.
        dominant: (B, K1) long, kept unchanged, in image order.
        anchors: (B, K2) long, in anchor order.
        members: (B, P) long, merged into an anchor.
        joins: (B, P) long, the number of the anchor that each member joins.
        weights: (B, N) float, each token's weight in the mean of its cluster; None for equal weights.
        averaged: (B, K2) bool, whether a contextual token is the mean of anchor and members; where it is not, it is
            the anchor plus the mean of its members. None for nowhere, which is the published method.
    """

    scores: Tensor
    dominant: Tensor
    anchors: Tensor
    members: Tensor
    joins: Tensor
    weights: Tensor | None = None
    averaged: Tensor | None = None

    def contextual(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, K2, D): each anchor with its members, or the anchor alone if it has none.

        Summed in float32 at least. Holds (B, N, D) in that precision, and nothing of the size of members times D.
        """
        anchors = at(x, self.anchors)
        if self.anchors.shape[1] == 0 or self.members.shape[1] == 0:
            return anchors
        full = wide(x)  # sums in half precision lose the small members
        weights = torch.ones_like(self.scores, dtype=full.dtype) if self.weights is None else self.weights.to(full)
        averaged = torch.zeros_like(self.anchors, dtype=torch.bool) if self.averaged is None else self.averaged
        joining = at(weights, self.members)
        own = at(weights, self.anchors).masked_fill(~averaged, 0)
        total = own.scatter_add(1, self.joins, joining)
        total = total.masked_fill(total == 0, 1)
        mean = clustered(full, self.members, self.joins, joining / at(total, self.joins), self.anchors.shape[1])
        anchor = at(full, self.anchors)
        return (torch.where(averaged[..., None], anchor * (own / total)[..., None], anchor) + mean).to(x.dtype)

    def retained(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, K1 + K2, D): dominant tokens in image order, then contextual ones in anchor order."""
        return torch.cat([at(x, self.dominant), self.contextual(x)], dim=1)

    @property
    def sizes(self) -> Tensor:
        """(B, K1 + K2) float: how many tokens each retained one stands for, itself and those that joined it."""
        ones = torch.ones_like(self.places, dtype=torch.float32)
        joined = self.joins + self.dominant.shape[1]
        return ones.scatter_add(1, joined, torch.ones_like(joined, dtype=torch.float32))

    @property
    def places(self) -> Tensor:
        """(B, K1 + K2) long: the place of every retained token, a contextual one's being its anchor's."""
        return torch.cat([self.dominant, self.anchors], dim=1)


Method = Callable[[Encoded, int, int, int], Merge]


def at(x: Tensor, places: Tensor) -> Tensor:
    """Gather (B, N, D) or (B, N) at places (B, k)."""
    return x.gather(1, places if x.ndim == 2 else places[..., None].expand(-1, -1, x.shape[-1]))


def clustered(x: Tensor, members: Tensor, joins: Tensor, shares: Tensor, clusters: int) -> Tensor:
    """Sum members (B, P) of x (B, N, D), each times its share (B, P), by the cluster they join: (B, clusters, D)."""
    batch, tokens, width = x.shape
    rows = torch.arange(batch, device=x.device)[:, None]
    order = joins.argsort(dim=1, stable=True)
    flat = (members + rows * tokens).gather(1, order).flatten()
    counts = torch.zeros(batch, clusters, dtype=torch.long, device=x.device)
    counts = counts.scatter_add(1, joins, torch.ones_like(joins)).flatten()
    shares = shares.gather(1, order).flatten()
    sums = embedding_bag(flat, x.flatten(0, 1), counts.cumsum(0) - counts, mode="sum", per_sample_weights=shares)
    return sums.view(batch, clusters, width)


def directions(x: Tensor) -> Tensor:
    """Scale x (B, N, D) to unit vectors in float32 at least, so that products are cosines. Zero stays zero."""
    return normalize(wide(x), dim=-1)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Compute cosines (B, n, m) of directions (B, n, D) and (B, m, D), in their precision whatever autocast says."""
    with exact(left.device):
        return left @ right.transpose(1, 2)


def scaled(x: Tensor) -> Tensor:
    """Scale x (B, N) to 0 to 1 within each row, in float32 at least."""
    x = wide(x)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)


def blocks(places: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Cut places (B, n) into parts whose cosines to `columns` tokens fit a block instead of a whole map."""
    parts: tuple[Tensor, ...] = places.split(max(1, block_size(places.device) // max(1, len(places) * columns)), dim=1)
    return parts


def join(encoded: Encoded, dominant: Tensor, anchors: Tensor, members: Tensor) -> Merge:
    """Every member joins the anchor whose key is most similar to its own, by cosine."""
    joins = torch.zeros_like(members)
    if anchors.shape[1] and members.shape[1]:
        direction = directions(encoded.keys)
        to = at(direction, anchors)
        parts = blocks(members, anchors.shape[1])
        joins = torch.cat([cosines(at(direction, part), to).argmax(-1) for part in parts], dim=1)
    return Merge(encoded.scores, dominant.sort(dim=1).values, anchors, members, joins)


def spaced(pool: Tensor, anchors: int) -> tuple[Tensor, Tensor]:
    """Split a pool (B, P) into `anchors` evenly spaced tokens and the (B, P - anchors) others. docs/method.md, 1.4."""
    step = max(1, pool.shape[1] // anchors) if anchors else 1
    # which columns are anchors depends on sizes only
    others = [i for i in range(pool.shape[1]) if i % step or i >= step * anchors]
    return pool[:, : step * anchors : step], pool[:, others]


def chosen(encoded: Encoded, rule: Worth, count: int) -> Tensor:
    """Choose `count` tokens of every image one after another, or fewer where these are enough: (B, K) places."""
    direction, stop = directions(encoded.features), encoded.stop
    order: Tensor = greedy(replace(rule, stop=stop), direction, count)
    return order if stop is None else order[:, : enough(direction, order, stop)]


def selected(encoded: Encoded, places: Tensor) -> Merge:
    """Tokens at `places` (B, K), kept unchanged; nothing is merged."""
    none = places[:, :0]
    return Merge(encoded.scores, places.sort(dim=1).values, none, none, none)
