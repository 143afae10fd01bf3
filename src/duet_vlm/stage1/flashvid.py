"""FlashVID: tokens that are salient and differ, and trees of what stays alike from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.registry import Stage1Method
from ..tensors.streamed import wide
from .common import Encoded, Merge, at, blocks, cosines, directions
from .options import diversified
from .videos import few_frames, framed

ALIKE = 0.8  # a link needs a cosine above it

METHOD = Stage1Method(
    name="flashvid",
    paper="2602.08024",
    contextual="3/10",
    needs=("scores", "features"),
    whole_videos=True,
    discards=True,
    averages="contextual",
    order=22,
)


def flashvid(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """FlashVID (arXiv 2602.08024): K1 tokens by salience and diversity, and K2 trees of the rest, each a mean.

    In every frame K1 / T tokens are chosen one by one: first the one with the highest score, then always the one with
    the largest product of its score and its cosine distance to the nearest of the chosen. Each of the others is linked
    to that of the frame before to which its features are the most similar, if their cosine is above 0.8; linked tokens
    form a tree, whose root is in its earliest frame. Where there are fewer trees than K2, the weakest links are cut;
    where there are more, those whose tokens have the highest scores in all are kept. A tree's mean stands at its root.

    The paper also cuts a video into segments, weighs distances by how relevant a token is to the events in it, and
    clusters trees that are too many; none of this is here. An image is a video of one frame, without links.
    One number of each video is read on the host: how many tokens its trees have.
    """
    batch, tokens = encoded.scores.shape
    chosen = _chosen(encoded, dominant)
    rest = torch.ones_like(encoded.scores, dtype=torch.bool).scatter(1, chosen, False)
    parents, similar = _links(encoded, rest)
    strength = torch.where(rest & (similar > ALIKE), similar, -torch.inf)
    strongest = strength.argsort(dim=1, descending=True, stable=True)[:, : tokens - dominant - contextual]
    linked = torch.zeros_like(rest).scatter(1, strongest, True) & (strength > ALIKE)
    own = torch.arange(tokens, device=rest.device).expand(batch, -1)
    roots = torch.where(linked, parents, own)
    for _ in range((encoded.frames - 1).bit_length()):  # each round doubles how far back a token sees
        roots = roots.gather(1, roots)
    weight = torch.zeros_like(wide(encoded.scores)).scatter_add(1, roots, wide(encoded.scores))
    weight = weight.nan_to_num(neginf=torch.finfo(weight.dtype).min).masked_fill(linked | ~rest, -torch.inf)
    anchors = weight.argsort(dim=1, descending=True, stable=True)[:, :contextual].sort(dim=1).values
    numbers = torch.arange(contextual, device=rest.device).expand(batch, -1)
    joins = torch.full_like(own, -1).scatter(1, anchors, numbers).gather(1, roots)
    inside = linked & (joins >= 0)
    members = inside.nonzero()[:, 1].view(batch, -1) if encoded.frames > 1 else own[:, :0]
    averaged = torch.ones_like(anchors, dtype=torch.bool)
    return Merge(
        encoded.scores, chosen.sort(dim=1).values, anchors, members, joins.gather(1, members), averaged=averaged
    )


def _chosen(encoded: Encoded, count: int) -> Tensor:
    """(B, count) long places, as many in every frame, or one more in the first ones."""
    video, scores = framed(encoded.features, encoded), framed(encoded.scores, encoded)
    batch, frames, tokens, _ = video.shape
    each, found = -(-count // frames), []
    for part in few_frames(video):
        few = video[:, part].flatten(0, 1)
        best = diversified(Encoded(scores[:, part].flatten(0, 1), few, few), each).scores
        order = best.argsort(dim=1, descending=True, stable=True)[:, :each].unflatten(0, (batch, -1))
        found.append(order + torch.arange(part.start, part.stop, device=order.device)[:, None] * tokens)
    return torch.cat(found, dim=1).transpose(1, 2).flatten(1)[:, :count]


def _links(encoded: Encoded, rest: Tensor) -> tuple[Tensor, Tensor]:
    """For each token, the place of the most similar one among `rest` of the frame before, and their cosine, (B, N)."""
    video, free = framed(encoded.features, encoded), framed(rest, encoded)
    batch, _, tokens, _ = video.shape
    everyone = torch.arange(tokens, device=rest.device).expand(batch, 1, -1)
    parents, similar = [everyone], [torch.full_like(wide(encoded.scores[:, None, :tokens]), -torch.inf)]
    for part in few_frames(video, first=1):
        back = slice(part.start - 1, part.stop - 1)
        now, before = (directions(video[:, where]).flatten(0, 1) for where in (part, back))
        taken = ~free[:, back].flatten(0, 1)[:, None]
        best = [
            cosines(at(now, some), before).masked_fill(taken, -torch.inf).max(-1)
            for some in blocks(everyone[:, 0].repeat(part.stop - part.start, 1), tokens)
        ]
        values, places = (torch.cat([one[i] for one in best], dim=1).unflatten(0, (batch, -1)) for i in (0, 1))
        frames = torch.arange(back.start, back.stop, device=rest.device)
        parents.append(places + frames[:, None] * tokens)
        similar.append(values)
    return torch.cat(parents, dim=1).flatten(1), torch.cat(similar, dim=1).flatten(1)
