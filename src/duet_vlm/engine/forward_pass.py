"""What a forward pass is: a prompt with images, text behind one, or text alone. It travels in kwargs.

No module remembers it. The core model's entrance makes one, the language model's exit ends it, and a call that is none
of the three is stock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..stage1 import Merge
from ..tensors.tokens import take
from .guiding import Guide
from .plan import Plan
from .present import Present
from .restriction import Restriction, Rope

Source = tuple[int, int, int, int]  # ids of places and their length in the cache, of stock's mask and embeddings
ARGUMENT = "duet"  # by which a pass travels from the core model to the decoder layers


@dataclass
class Prefill:
    """A prompt with images or videos: B rows of S tokens.

    Where sound is compressed, audio tokens count among the visual tokens in everything that is said here.

    Attributes:
        plan: the settings it runs under, whatever changes meanwhile.
        visual: (B, S) bool, the visual tokens coming in.
        valid: (B, S) bool, False at padding.
        spans: (B, S) long, the number of each visual token's image or video, 0 at text.
        limits: (spans + 1,) long, visual tokens of each span after stage 1: M of docs/method.md, 2.3.
        queries: (B, q) long places of the query tokens, -1 for a hole; q is 0 where nothing is ranked.
        holes_right: whether holes stand at the end of a row, as its padding does.
        past_valid: (B, P) bool, False at padding among the P tokens that the cache has seen; None where it has none.
        merged_away: (B, S) bool, the visual tokens that stage 1 removed; None for none.
        without_answer: (B, 1) bool, rows that have labels but no answer, so stage 2 drops nothing of them; None without
            labels.
        sees_ahead: whether query tokens see the whole prompt, also what stands behind them.
        log_sizes: (B, S) float32, log of how many tokens each one stands for; None where that weighs nothing.
        decisions: what stage 1 did, in the order of encoding, for the trace.
        audio: (B, S) bool, the audio tokens among the visual ones; None where sound is text or does not come.
        sounds: how many of the spans are sounds; they are the last ones.
        heard: what stage 1 did to the sounds, in the order of encoding, for the trace.
        guide: what every window of a video keeps, where its sound decides; None elsewhere.
        deepstack: decoder layer -> (B, S, D), what is added to the hidden states before it; zeros at text.
        present: the tokens that are there now.
        kept: decoder layer -> (B, n) long, the places kept from there on.
        scores: decoder layer -> (B, n) float, of the tokens present there, as ranked.
        ranked: decoder layer -> the places that its scores speak of, None for every token.
        restrictions: what was made for the layers of this segment, by what it was made from.
        lent: type of attention -> mask and rotary embeddings of the layer that lends its keys and values.
    """

    plan: Plan
    visual: Tensor
    valid: Tensor
    spans: Tensor
    limits: Tensor
    queries: Tensor
    holes_right: bool = False
    past_valid: Tensor | None = None
    merged_away: Tensor | None = None
    without_answer: Tensor | None = None
    sees_ahead: bool = False
    log_sizes: Tensor | None = None
    decisions: list[Merge] = field(default_factory=list)
    audio: Tensor | None = None
    sounds: int = 0
    heard: list[Merge] = field(default_factory=list)
    guide: Guide | None = None
    deepstack: dict[int, Tensor] = field(default_factory=dict)
    present: Present = field(init=False)
    kept: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[int, Tensor] = field(default_factory=dict)
    ranked: dict[int, Tensor | None] = field(default_factory=dict)
    restrictions: dict[Source, Restriction] = field(default_factory=dict)
    lent: dict[str, tuple[Any, Rope]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.present = Present(self.visual)

    def drop(self, layer: int, keep: Tensor, hidden: Tensor) -> Tensor:
        """Keep the (B, n) bool part of the present tokens from `layer` on; (B, n, D) -> (B, m, D) hidden states."""
        index, self.present = self.present.narrowed(keep, self.holes_right)
        self.kept[layer] = self.present.places
        self.restrictions.clear()
        return take(hidden, index)

    def move(self, device: torch.device) -> None:
        """Go on at a decoder layer that computes on another device.

        Not called `to`, by which accelerate's hooks would put None in its place among the arguments of a module.
        """
        if self.visual.device == device:
            return
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Tensor | Present):
                setattr(self, one.name, value.to(device))
        self.deepstack = {layer: x.to(device) for layer, x in self.deepstack.items()}
        self.scores = {layer: scores.to(device) for layer, scores in self.scores.items()}
        self.restrictions.clear()

    def record(self) -> PrefillRecord:
        """What is left of it for the trace."""
        at = {layer: drop.ranking_layer for layer, drop in self.plan.drops_by_layer.items()}
        return PrefillRecord(
            self.visual, self.queries, self.decisions, self.kept, self.scores, self.ranked, at, self.audio, self.heard
        )


@dataclass
class Decode:
    """Text that follows a compressed prompt, or several: the cache says what is left of them, and nothing is dropped.

    Attributes:
        plan: the settings it runs under.
        restrictions: what was made for the layers, one for each segment, by what it was made from.
        ropes: id of what segments hold as missing -> their rotary embeddings; None until a layer needs them.
        lent: as in `Prefill`.
    """

    plan: Plan
    restrictions: dict[Source, Restriction] = field(default_factory=dict)
    ropes: dict[int, Rope] | None = None
    lent: dict[str, tuple[Any, Rope]] = field(default_factory=dict)


@dataclass
class TextOnly:
    """Text in training, where other processes may have images: drops nothing, and runs every module that they run.

    Attributes:
        prompt: the text, as a prompt without a visual token, so that it can be ranked.
        zero: () 0, with the gradient of a blank image.
    """

    prompt: Prefill
    zero: Tensor

    @classmethod
    def of(cls, plan: Plan, ids: Tensor, zero: Tensor) -> TextOnly:
        """Text of these ids (B, S)."""
        none = torch.zeros_like(ids, dtype=torch.bool)
        spans = torch.zeros_like(ids)
        return cls(Prefill(plan, none, none, spans, limits=spans[0, :1], queries=spans[:, :1] - 1), zero)


ForwardPass = Prefill | Decode | TextOnly
Entry = tuple[ForwardPass | None, dict[str, Any]]  # what a call of the core model is, and the arguments it goes on with


@dataclass
class PrefillRecord:
    """What a prompt that is over kept, as tensors.

    Attributes:
        visual: (B, S) bool, the visual tokens that came in.
        queries: (B, q) long places of the query tokens, -1 for a hole.
        decisions: what stage 1 did, in the order of encoding.
        kept: decoder layer -> (B, n) long, the places kept from there on.
        scores: decoder layer -> (B, n) float, of the tokens present there, as ranked.
        ranked: decoder layer -> (B, n) the places that its scores speak of, None for every token.
        ranked_at: decoder layer -> the layer whose weights made its scores.
        audio, heard: as in `Prefill`.
        margins: (B,) float, by how much each first token led; None where nobody asked.
        fell_back: (B,) bool, the rows that were read again with all visual tokens; None likewise.
    """

    visual: Tensor
    queries: Tensor
    decisions: list[Merge]
    kept: dict[int, Tensor]
    scores: dict[int, Tensor]
    ranked: dict[int, Tensor | None]
    ranked_at: dict[int, int]
    audio: Tensor | None
    heard: list[Merge]
    margins: Tensor | None = None
    fell_back: Tensor | None = None
