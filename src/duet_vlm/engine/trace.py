"""What a forward pass kept, as plain data: for pictures, evaluation and tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..stage1 import Merge
from .forward_pass import Record


@dataclass
class ImageTrace:
    """One image (or crop) in stage 1. Places are patches in raster order; -1 is the CLS token.

    Attributes:
        scores: the score of every patch.
        dominant: places kept unchanged, in image order.
        anchors: places of the contextual tokens, in anchor order.
        clusters: for each anchor, the places merged into it.
    """

    scores: list[float]
    dominant: list[int]
    anchors: list[int]
    clusters: list[list[int]]


@dataclass
class DropTrace:
    """One sample at one drop layer (0: the entrance, where what stage 1 removed goes).

    Attributes:
        layer: decoder layer from which on only `kept` is there.
        kept: places in the prompt (indices into its row of `input_ids`) of the visual tokens kept.
        ranked: places in the prompt of the visual tokens that were ranked; empty where nothing was.
        scores: the score of each of them.
    """

    layer: int
    kept: list[int]
    ranked: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


@dataclass
class SampleTrace:
    """One row of the batch.

    Attributes:
        visual: places in the prompt of all its visual tokens.
        queries: places in the prompt of its query tokens.
        drops: what each drop kept, in layer order.
        tokens_per_layer: visual tokens that each decoder layer worked on.
    """

    visual: list[int]
    queries: list[int]
    drops: list[DropTrace]
    tokens_per_layer: list[int]


@dataclass
class Trace:
    """The last prefill: `images` in the order they were encoded, `samples` in the order of the batch."""

    images: list[ImageTrace]
    samples: list[SampleTrace]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Record, layers: int) -> Trace:
        """Read what a prompt kept on a model of so many layers; the only place that copies it to the host."""
        images = [image for merge in record.merges for image in _images(merge)]
        return cls(images, [_sample(record, row, layers) for row in range(len(record.visual))])


def _images(merge: Merge) -> list[ImageTrace]:
    images = []
    for scores, dominant, anchors, members, joins in zip(
        merge.scores.tolist(),
        merge.dominant.tolist(),
        merge.anchors.tolist(),
        merge.members.tolist(),
        merge.joins.tolist(),
        strict=True,
    ):
        clusters: list[list[int]] = [[] for _ in anchors]
        for place, anchor in zip(members, joins, strict=True):
            clusters[anchor].append(place)
        images.append(ImageTrace(scores, dominant, anchors, clusters))
    return images


def _sample(record: Record, row: int, layers: int) -> SampleTrace:
    is_visual = record.visual[row].tolist()
    visual = [i for i, flag in enumerate(is_visual) if flag]
    drops, counts = [], [len(visual)] * layers
    for layer, kept in sorted(record.kept.items()):
        drop = DropTrace(layer, [i for i in kept[row].tolist() if i >= 0 and is_visual[i]])
        if layer in record.scores:
            present = record.ranked[layer]
            places = range(len(is_visual)) if present is None else present[row].tolist()
            scores = zip(places, record.scores[layer][row].tolist(), strict=True)
            chosen = [(i, score) for i, score in scores if i >= 0 and is_visual[i]]
            drop.ranked, drop.scores = [i for i, _ in chosen], [score for _, score in chosen]
        drops.append(drop)
        counts[layer:] = [len(drop.kept)] * (layers - layer)
    queries = [i for i in record.queries[row].tolist() if i >= 0]
    return SampleTrace(visual, queries, drops, counts)
