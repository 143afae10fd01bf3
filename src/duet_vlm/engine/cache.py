"""A key-value cache whose layers hold different parts of the tokens seen. The only user of `cache_utils`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from ..errors import CacheError, DuetError
from .merge_sizes import append_sizes

# stands for a layer that borrows keys; where a transformers does not have it, `apply` says that it is too old
DummyLayer: Any = getattr(cache_utils, "DummyLayer", None)


@dataclass(frozen=True, eq=False)
class Held:
    """Which of the tokens seen a cache layer holds. It never changes: what comes makes another one.

    The layers of one segment share it, so what is made from it is made once for all of them.

    Attributes:
        length: tokens of the full sequence seen so far.
        kept: (B, n) long places in it, -1 for a hole; None where every token is held.
        tail: how many tokens came after `kept`, all of them held.
        holes: whether `kept` has any.
        removed: (B, 1) long, how many tokens each row is missing, for renumbered positions; None for none.
        log_sizes: (B, <= length) float32 by place, what is added to the logits of a key; None for nothing.
    """

    length: int = 0
    kept: Tensor | None = None
    tail: int = 0
    holes: bool = False
    removed: Tensor | None = None
    log_sizes: Tensor | None = None

    def columns(self, batch: int, device: torch.device) -> Tensor:
        """Return the places of all held keys in the full sequence: (B, kv) long, -1 for a hole."""
        if self.kept is None:
            return torch.arange(self.length, device=device).expand(batch, -1)
        if not self.tail:
            return self.kept
        tail = torch.arange(self.length - self.tail, self.length, device=self.kept.device)
        return torch.cat([self.kept, tail.expand(self.kept.shape[0], -1)], dim=1)

    def after_text(self, tokens: int) -> Held:
        """Return what the layer holds after `tokens` more tokens, all of which it stores."""
        tail = 0 if self.kept is None else self.tail + tokens
        return Held(self.length + tokens, self.kept, tail, self.holes, self.removed, self.log_sizes)

    def after_prompt(
        self, kept: Tensor, length: int, *, holes: bool, removed: Tensor | None, log_sizes: Tensor | None
    ) -> Held:
        """Return what the layer holds after a prompt, of which it stores the kept part.

        Args:
            kept: (B, n) long places in the prompt, -1 for a hole.
            length: tokens of the prompt.
            holes: whether `kept` has any.
            removed: (B, 1) how many of them are missing; None where positions stay.
            log_sizes: (B, length) what is added to the logits of each; None for nothing.
        """
        log_sizes = append_sizes(self.log_sizes, self.length, log_sizes)
        if self.length:
            places = torch.where(kept < 0, -1, kept + self.length)
            kept = torch.cat([self.columns(len(kept), kept.device).to(kept.device), places], dim=1)
            if self.removed is not None:
                removed = self.removed if removed is None else self.removed + removed
        return Held(self.length + length, kept, 0, self.holes or holes, removed, log_sizes)

    def before_last(self, tokens: int) -> tuple[Held, int]:
        """Return what the layer holds without the last `tokens` seen, and how many keys must go with them.

        Raises:
            DuetError: some of these tokens were dropped, and some before them too.
        """
        left, gone = self.length - tokens, tokens
        log_sizes = self.log_sizes
        if log_sizes is not None and log_sizes.shape[1] > left:
            log_sizes = log_sizes[:, :left]
        if self.kept is None or tokens <= self.tail:
            tail = 0 if self.kept is None else self.tail - tokens
            return replace(self, length=left, tail=tail, log_sizes=log_sizes), gone
        columns = self.columns(len(self.kept), self.kept.device)
        removed, holes, before = self.removed, self.holes, columns[:, :left]
        if before.shape[1] == left and bool((before == torch.arange(left, device=columns.device)).all()):
            gone, removed, holes = columns.shape[1] - left, None, False  # all that is missing goes
        else:
            ending = torch.arange(left, self.length, device=columns.device)
            if columns.shape[1] < tokens or not bool((columns[:, columns.shape[1] - tokens :] == ending).all()):
                raise DuetError(
                    f"the cache cannot give back its last {tokens} tokens: visual tokens were dropped among them; "
                    "start a new cache."
                )
        kept = columns[:, : columns.shape[1] - gone]
        return Held(left, kept, 0, holes, removed, log_sizes), gone

    def of_rows(self, change: Callable[[Tensor], Tensor]) -> Held:
        """Apply `change`, which makes (B', ...) from (B, ...), to everything that has a row for each sample."""
        kept, removed, log_sizes = (
            None if one is None else change(one) for one in (self.kept, self.removed, self.log_sizes)
        )
        return replace(self, kept=kept, removed=removed, log_sizes=log_sizes)


NOTHING = Held()


class PrunedLayer(DynamicLayer):
    """Keys and values of some of the tokens seen; `held` says which.

    Lengths are those of the full sequence, as in a sliding-window layer, so everything transformers derives from
    them (masks, positions, slicing of `input_ids`) stays right. What will be held is announced, and is so once `update`
    has stored it: a call that fails leaves the layer as it was. Until a compressed prompt comes, it is a dynamic layer.

    Attributes:
        held: which tokens it holds.
        coming: what it will hold after the next `update`; None where nobody said so.
    """

    def __init__(self, layer: DynamicLayer | None = None):
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: Held = NOTHING
        self.coming: Held | None = None
        if layer is not None and layer.keys is not None and layer.values is not None and layer.get_seq_length():
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values
            self.held = Held(layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        after, self.coming = self.coming, None
        if after is None:
            if self.held.kept is not None:
                raise DuetError(
                    "this cache holds a compressed prompt, and the model is not compressed now: apply duet_vlm again "
                    "to go on with it, or start a new cache."
                )
            after = self.held.after_text(key_states.shape[-2])
        stored = super().update(key_states, value_states, *args, **kwargs)
        self.held = after
        return stored

    def get_seq_length(self) -> int:
        return self.held.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.held.length + query_length, 0

    def reset(self) -> None:
        super().reset()
        self.held, self.coming = NOTHING, None

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            super().crop(tokens_to_remove)  # refused
        held, keys = self.held.before_last(min(abs(tokens_to_remove), self.held.length))
        super().crop(-keys)
        self.held = held

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.held = self.held.of_rows(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.held = self.held.of_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.held = self.held.of_rows(lambda x: x[indices])


def check_prunable(cache: Cache) -> None:
    """Refuse, before anything changes, a cache whose layers cannot hold different parts of the sequence."""
    for layer in cache.layers:
        if type(layer) in (PrunedLayer, DynamicLayer, LinearAttentionLayer, DummyLayer):
            continue
        if type(layer) is DynamicSlidingWindowLayer and not layer.get_seq_length():
            continue
        kind = type(layer).__name__
        if isinstance(layer, DynamicSlidingWindowLayer):
            raise CacheError(f"visual tokens cannot be dropped from a {kind} that holds tokens: start a new cache.")
        raise CacheError(
            f"visual tokens cannot be dropped from a cache of {kind}: use the default dynamic cache "
            "(leave out cache_implementation)."
        )


def check_equal_lengths(cache: Cache, layers: int) -> None:
    """Refuse a cache that a failed call left with layers of different lengths, or with states that belong to none.

    `layers` says how many store something.
    """
    held: list[Any] = cache.layers
    lengths, states = set[int](), set[bool]()
    for layer in held:
        if type(layer) is PrunedLayer:
            lengths.add(layer.held.length)
        elif type(layer) is LinearAttentionLayer:
            states.add(layer.has_previous_state[0])
        elif type(layer) is not DummyLayer:  # a dummy stands for a layer that borrows keys
            lengths.add(layer.get_seq_length())
    if len(cache.layers) < layers:
        lengths.add(0)
    if states and states != {bool(max(lengths))}:
        raise CacheError("a call that failed left this cache with states of its own: start a new cache.")
    if len(lengths) > 1:
        raise CacheError(
            f"a call that failed left this cache with layers of {min(lengths)} and of {max(lengths)} tokens: "
            "start a new cache."
        )


def pruned_layer(cache: Cache, i: int) -> PrunedLayer:
    """Layer i of a cache that `check_prunable` let pass, turned into a `PrunedLayer` if it is none."""
    layers: list[Any] = cache.layers
    while len(layers) <= i:
        layers.append(PrunedLayer())
    layer = layers[i]
    if isinstance(layer, PrunedLayer):
        return layer
    check_prunable(cache)
    pruned = layers[i] = PrunedLayer(layer)
    return pruned


def is_pruned(cache: Cache | None) -> bool:
    """Whether a compressed prompt went into this cache."""
    for layer in getattr(cache, "layers", None) or ():
        if isinstance(layer, PrunedLayer) and layer.held.kept is not None:
            return True
    return False


def forget_announced(cache: Cache | None) -> None:
    """After a call that failed: what was announced to a layer and did not come is not waited for."""
    for layer in getattr(cache, "layers", None) or ():
        if isinstance(layer, PrunedLayer):
            layer.coming = None
