"""What one forward pass knows of its tokens. It travels in kwargs; no module remembers it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..stage1 import Merge
from ..tensors.tokens import pack, select, slots, take
from .plan import Plan


@dataclass
class ForwardPass:
    """From the core model's entrance to its language model's exit.

    Attributes:
        plan: the settings it runs under, whatever changes meanwhile.
        visual: (B, S) bool, the visual tokens coming in; None when there are none (a decode step, text alone).
        valid: (B, S) bool, False at padding.
        past_valid: (B, P) bool, the same of the P tokens that the cache has seen; None for all of them.
        spans: (B, S) long, the number of each visual token's image or video, 0 at text.
        gone: (B, S) bool, the visual tokens that stage 1 removed; None for none.
        queries: (B, q) long places of the query tokens, -1 for a hole; None where nothing is ranked.
        limits: (spans + 1,) long, visual tokens of each span after stage 1: M of docs/method.md, 2.3.
        unanswered: (B, 1) bool, rows that have labels but no answer, so stage 2 drops nothing of them; None without
            labels.
        blank: 0, with the gradient of a blank image: text alone, where other processes may have images; else None.
        merges: what stage 1 did, in the order of encoding, for the trace.
        deepstack: (B, S, D) each, what is added to the hidden states after layers 0, 1, ...; zeros at text.
        kept: decoder layer -> (B, n), the tokens kept from there on.
        scores: decoder layer -> (B, n), of the tokens present there, as ranked.
        ranked: decoder layer -> the `kept` that its scores speak of, None for every token.
        now: (B, n) the tokens present now, None for every token.
        removed: (B, 1) how many visual tokens each row has lost so far.
        holes, holes_right: whether `now` has holes, and whether they stand at the end as padding does.
        memo: what is made once between two drops.
        log_sizes: (B, S) float32, log of how many tokens each one stands for, where that weighs; else None.
    """

    plan: Plan
    visual: Tensor | None = None
    valid: Tensor | None = None
    past_valid: Tensor | None = None
    spans: Tensor | None = None
    gone: Tensor | None = None
    queries: Tensor | None = None
    limits: Tensor | None = None
    unanswered: Tensor | None = None
    blank: Tensor | None = None
    merges: list[Merge] = field(default_factory=list)
    deepstack: list[Tensor] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[int, Tensor] = field(default_factory=dict)
    ranked: dict[int, Tensor | None] = field(default_factory=dict)
    now: Tensor | None = None
    removed: Tensor | None = None
    holes: bool = False
    holes_right: bool = False
    memo: dict[Any, Any] = field(default_factory=dict)
    log_sizes: Tensor | None = None

    @property
    def length(self) -> int:
        assert self.visual is not None
        return self.visual.shape[1]

    @property
    def rows(self) -> Tensor:
        """(B, n) places of the tokens present now."""
        if self.now is not None:
            return self.now
        assert self.visual is not None
        return torch.arange(self.length, device=self.visual.device).expand(self.visual.shape[0], -1)

    def present(self, flags: Tensor | None) -> Tensor:
        """(B, S) flags or numbers of every token -> (B, n) of those present now; a hole is False or 0."""
        assert flags is not None
        return flags if self.now is None else take(flags, self.now).masked_fill(self.now < 0, 0)

    def present_vectors(self, x: Tensor) -> Tensor:
        """(B, S, D) of every token -> (B, n, D) of those present now."""
        return x if self.now is None else take(x, self.now)

    def present_queries(self) -> Tensor:
        """(B, q) where the query tokens stand among the tokens present now, -1 for a hole. Text is never dropped."""
        assert self.queries is not None
        if self.now is None:
            return self.queries
        return take(slots(self.now, self.length), self.queries).masked_fill(self.queries < 0, -1)

    def drop(self, layer: int, keep: Tensor) -> Tensor:
        """Keep the (B, n) bool part of the present tokens from `layer` on; returns their indices among the present."""
        index, self.holes = pack(keep, self.holes_right)
        self.now = index if self.now is None else select(self.now, index)
        self.kept[layer] = self.now
        assert self.visual is not None
        self.removed = (self.visual & (self.present_slots() < 0)).sum(1, keepdim=True)
        self.memo.clear()
        return index

    def removed_before(self) -> Tensor:
        """(B, n) how many visual tokens are gone before each present token."""
        assert self.visual is not None
        return take((self.visual & (self.present_slots() < 0)).cumsum(1), self.rows)

    def present_slots(self) -> Tensor:
        """(B, S) where each token stands among the present ones, -1 if it is gone."""
        return slots(self.rows, self.length)

    def to(self, device: torch.device) -> None:
        """Go on at a decoder layer that computes on another device."""
        if self.visual is None or self.visual.device == device:
            return
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Tensor):
                setattr(self, one.name, value.to(device))
        self.deepstack = [x.to(device) for x in self.deepstack]
        self.scores = {layer: scores.to(device) for layer, scores in self.scores.items()}
        self.memo.clear()

    def finish(self) -> None:
        """Let go of what the trace does not need."""
        self.memo.clear()
        self.deepstack = []
        self.gone = self.log_sizes = self.limits = self.spans = self.valid = self.past_valid = self.blank = None
