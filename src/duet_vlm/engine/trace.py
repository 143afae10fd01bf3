"""What a forward pass kept, as plain data: for pictures, evaluation and tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from ..stage1 import Merge
from .forward_pass import PrefillRecord


@dataclass
class ImageTrace:
    """What stage 1 did to one image, crop, tile or frame. A place is the number of a visual token in raster order.

    A method that is shown whole videos has one of these for a video, whose places run on from frame to frame.

    Attributes:
        scores: the score of each of the N visual tokens (docs/method.md, 1.1); 0 for those that `pixelprune` left out,
            and without another stage 1 behind it 1 for the others.
        dominant: the places that were kept unchanged, in image order. CLS is none of them.
        anchors: the places of the contextual tokens, in anchor order.
        clusters: for each anchor, the places that were merged into it.
    """

    scores: list[float]
    dominant: list[int]
    anchors: list[int]
    clusters: list[list[int]]


@dataclass
class DropTrace:
    """What one drop did to one sample. A place is an index into the sample's row of `input_ids`.

    Attributes:
        layer: the decoder layer from which on only `kept` is there. Layer 0 is the entrance of the language model,
            where the tokens that stage 1 removed go.
        kept: the places of the visual tokens that were kept.
        ranked: the places of the visual tokens that were ranked; empty where nothing was ranked.
        scores: the score of each ranked token, in the order of `ranked` (docs/method.md, 2.2).
        ranked_at: the decoder layer whose weights ranked them; None where nothing was ranked. In a hybrid decoder it is
            the last layer with attention that is not behind the one asked for.
    """

    layer: int
    kept: list[int]
    ranked: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ranked_at: int | None = None


@dataclass
class SampleTrace:
    """What was kept of one sample, a row of the batch. A place is an index into its row of `input_ids`.

    Attributes:
        visual: the places of all visual tokens of the prompt.
        queries: the places of the query tokens, whose attention ranked them; empty where nothing was ranked.
        drops: what each drop did, in the order of layers.
        tokens_per_layer: how many visual tokens each decoder layer worked on, a number for each of the L layers.
        margin: with `fallback`, by how much the probability of the first token led; None without.
        fell_back: whether the sample was read again with all visual tokens; what is said above is of the first reading.
    """

    visual: list[int]
    queries: list[int]
    drops: list[DropTrace]
    tokens_per_layer: list[int]
    margin: float | None = None
    fell_back: bool = False

    @property
    def work_per_layer(self) -> list[int]:
        """Visual tokens that each layer worked on, in both readings together."""
        again = len(self.visual) if self.fell_back else 0
        return [count + again for count in self.tokens_per_layer]

    @property
    def held_per_layer(self) -> list[int]:
        """Visual tokens that the cache holds of each layer, and that the answer is given from."""
        return [len(self.visual)] * len(self.tokens_per_layer) if self.fell_back else self.tokens_per_layer


@dataclass
class AudioTrace:
    """What was kept of the sounds of a prompt. What is said of images and visual tokens goes for sounds and theirs.

    Attributes:
        sounds: what stage 1 did, in the order in which sounds were encoded. A place is the number of an audio token in
            order of time; all that are retained are anchors, also those that nothing was merged into.
        samples: what each row of the batch kept of its audio tokens, in the order of the batch.
    """

    sounds: list[ImageTrace]
    samples: list[SampleTrace]


@dataclass
class Trace:
    """What was kept of a prompt, in Python's own numbers and lists: `handle.trace`.

    Attributes:
        images: what stage 1 did, in the order in which images were encoded; empty where it was off.
        samples: what each row of the batch kept, in the order of the batch.
        audio: the same of sound, where `audio_keep` compresses it and some came; else None.

    Example:
        >>> import duet_vlm
        >>> from duet_vlm.demo.model import load
        >>> from PIL import Image
        >>> model, processor = load()
        >>> picture, text = Image.new("RGB", (112, 112)), "USER: <image>\\nWhat color is the star? ASSISTANT:"
        >>> inputs = processor(images=picture, text=text, return_tensors="pt")
        >>> config = duet_vlm.DuetConfig(dominant=40, contextual=8, drops=[duet_vlm.Drop(6, 0.5)])
        >>> with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        ...     output = model(**inputs, logits_to_keep=1)
        ...     trace = handle.trace
        >>> len(trace.images[0].scores), len(trace.images[0].dominant), len(trace.images[0].anchors)  # without CLS
        (196, 39, 8)
        >>> [(drop.layer, len(drop.kept)) for drop in trace.samples[0].drops]
        [(0, 48), (6, 24)]
        >>> sorted(trace.to_dict())
        ['images', 'samples']
    """

    images: list[ImageTrace]
    samples: list[SampleTrace]
    audio: AudioTrace | None = None

    def to_dict(self) -> dict[str, Any]:
        """The trace as dicts and lists, ready for JSON; without `audio` where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, record: PrefillRecord, layers: int) -> Trace:
        """Read what a prompt kept on a model of `layers` decoder layers; the only place that copies it to the host."""
        images = [image for merge in record.decisions for image in _images(merge)]
        if record.audio is None:
            return cls(images, _samples(record, record.visual, layers))
        sounds = [sound for merge in record.heard for sound in _images(merge)]
        audio = AudioTrace(sounds, _samples(record, record.audio, layers))
        return cls(images, _samples(record, record.visual & ~record.audio, layers), audio)


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


def _samples(record: PrefillRecord, visual: Tensor, layers: int) -> list[SampleTrace]:
    """What each row kept of the tokens that `visual` (B, S) marks."""
    return [_sample(record, row, one, layers) for row, one in enumerate(visual.tolist())]


def _sample(record: PrefillRecord, row: int, is_visual: list[bool], layers: int) -> SampleTrace:
    visual = [i for i, flag in enumerate(is_visual) if flag]
    drops, counts = [], [len(visual)] * layers
    for layer, kept in sorted(record.kept.items()):
        drop = DropTrace(layer, [i for i in kept[row].tolist() if i >= 0 and is_visual[i]])
        if layer in record.ranked:
            present = record.ranked[layer]
            places = range(len(is_visual)) if present is None else present[row].tolist()
            scores = zip(places, record.scores[layer][row].tolist(), strict=True)
            chosen = [(i, score) for i, score in scores if i >= 0 and is_visual[i]]
            drop.ranked, drop.scores = [i for i, _ in chosen], [score for _, score in chosen]
            drop.ranked_at = record.ranked_at[layer]
        drops.append(drop)
        counts[layer:] = [len(drop.kept)] * (layers - layer)
    queries = [i for i in record.queries[row].tolist() if i >= 0]
    if record.margins is None or record.fell_back is None:
        return SampleTrace(visual, queries, drops, counts)
    margin, fell_back = float(record.margins[row]), bool(record.fell_back[row])
    return SampleTrace(visual, queries, drops, counts, margin, fell_back)
