"""A key-value cache whose layers hold different parts of the tokens seen. The only user of `cache_utils`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from ..errors import CacheError, DuetError
from .merge_sizes import followed


@dataclass(frozen=True)
class Coming:
    """What the next `update` of a layer brings, of `length` tokens.

    Attributes:
        kept: (B, n) places of what comes, counted from the first of them, -1 for a hole; None for all of them.
        length: tokens of the full sequence.
        holes: whether `kept` has any.
        removed: (B, 1) how many of them are missing, for renumbered positions; None where positions stay.
        log_sizes: (B, length) what is added to the logits of each; None for nothing.
    """

    kept: Tensor | None
    length: int
    holes: bool = False
    removed: Tensor | None = None
    log_sizes: Tensor | None = None


class PrunedLayer(DynamicLayer):
    """Keys and values of some of the tokens seen; `kept` says which.

    Lengths are those of the full sequence, as in a sliding-window layer, so everything transformers derives from
    them (masks, positions, slicing of `input_ids`) stays right. Decoding drops nothing, so the tokens after `kept`
    are only counted, in `tail`. What comes is announced and is part of the layer once `update` has stored it: a call
    that fails leaves it as it was. Until a compressed prompt comes, it is a dynamic layer.

    Attributes:
        kept: (B, n) places in the full sequence, -1 for a hole; None where every token is there.
        removed: (B, 1) how many tokens each row is missing here, for renumbered positions; None for none.
        holes: whether `kept` has any.
        tail: how many tokens came after `kept`, all of them stored.
        length: tokens of the full sequence seen so far.
        log_sizes: (B, <= length) by place, what is added to the logits of a key; None for nothing.
    """

    def __init__(self, layer: DynamicLayer | None = None):
        super().__init__()
        self._forget()
        if layer is not None and layer.keys is not None and layer.values is not None and layer.get_seq_length():
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values
            self.length = layer.keys.shape[-2]

    def _forget(self) -> None:
        self.kept: Tensor | None = None
        self.removed: Tensor | None = None
        self.log_sizes: Tensor | None = None
        self.holes, self.tail, self.length = False, 0, 0
        self.coming: Coming | None = None

    def after(self, coming: Coming) -> dict[str, Any]:
        """The attributes once `coming` is stored."""
        whole = self.length + coming.length
        if coming.kept is None:
            return {"tail": 0 if self.kept is None else self.tail + coming.length, "length": whole}
        log_sizes = followed(self.log_sizes, self.length, coming.log_sizes)
        kept, removed = coming.kept, coming.removed
        if self.length:
            kept = torch.cat([self.columns(), torch.where(kept < 0, -1, kept + self.length)], dim=1)
            if self.removed is not None:
                removed = self.removed if removed is None else self.removed + removed
        return {
            "kept": kept, "removed": removed, "holes": self.holes or coming.holes, "tail": 0, "length": whole,
            "log_sizes": log_sizes,
        }  # fmt: skip

    def announce(self, coming: Coming) -> dict[str, Any]:
        """Say before an `update` what it brings; returns the attributes that the layer will have then."""
        self.coming = coming
        return self.after(coming)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        coming, self.coming = self.coming, None
        n = key_states.shape[-2]
        if coming is None:
            if self.kept is not None:
                raise DuetError(
                    "this cache holds a compressed prompt, and the model is not compressed now: apply duet_vlm again "
                    "to go on with it, or start a new cache."
                )
            coming = Coming(None, n)
        after = self.after(coming)
        stored = n if coming.kept is None else coming.kept.shape[1]
        new = key_states, value_states
        if stored < n:  # filler, which comes with a first prefill only, is worked on and not stored
            new = key_states[:, :, :stored], value_states[:, :, :stored]
        seen = super().update(*new, *args, **kwargs)
        for name, value in after.items():
            setattr(self, name, value)
        return seen if n == stored else (key_states, value_states)

    def columns(self, coming: int = 0) -> Tensor:
        """(B, kv) place of every key stored, and of `coming` more."""
        if self.kept is None and self.keys is not None:
            everything = torch.arange(self.length + coming, device=self.keys.device)
            return everything.expand(self.keys.shape[0], -1)
        assert self.kept is not None
        tail = torch.arange(self.length - self.tail, self.length + coming, device=self.kept.device)
        return torch.cat([self.kept, tail.expand(self.kept.shape[0], -1)], dim=1) if len(tail) else self.kept

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def reset(self) -> None:
        super().reset()
        self._forget()

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            super().crop(tokens_to_remove)  # refused
        stored = n = min(abs(tokens_to_remove), self.length)
        if n <= self.tail:
            self.tail -= n
        elif self.kept is not None:
            columns, left = self.columns(), self.length - n
            whole = columns[:, :left]
            if whole.shape[1] == left and bool((whole == torch.arange(left, device=columns.device)).all()):
                stored = columns.shape[1] - left  # all that is missing goes
            else:
                ending = torch.arange(left, self.length, device=columns.device)
                if columns.shape[1] < n or not bool((columns[:, columns.shape[1] - n :] == ending).all()):
                    raise DuetError(
                        f"the cache cannot give back its last {n} tokens: visual tokens were dropped among them; "
                        "start a new cache."
                    )
            self.kept, self.tail = columns[:, : columns.shape[1] - stored], 0
            if stored != n:
                self.removed, self.holes = None, False
        super().crop(-stored)
        self.length -= n
        self.log_sizes = None if self.log_sizes is None else self.log_sizes[:, : self.length]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._each_row(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._each_row(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._each_row(lambda x: x[indices])

    def _each_row(self, change: Any) -> None:
        for name in ("kept", "removed", "log_sizes"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, change(value))


def check_prunable(cache: Cache) -> None:
    """Refuse, before anything changes, a cache whose layers cannot hold different parts of the sequence."""
    for layer in cache.layers:
        if type(layer) in (PrunedLayer, DynamicLayer):
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


def check_whole(cache: Cache, layers: int) -> None:
    """Refuse a cache that a failed call left with layers of different lengths."""
    held: list[Any] = cache.layers
    lengths = {layer.get_seq_length() for layer in held}
    if len(cache.layers) < layers:
        lengths.add(0)
    if len(lengths) > 1:
        raise CacheError(
            f"a call that failed left this cache with layers of {min(lengths)} and of {max(lengths)} tokens: "
            "start a new cache."
        )


def pruned_layer(cache: Cache, i: int) -> PrunedLayer:
    """Layer i of a cache that `check_prunable` let pass, turned into a `PrunedLayer` if it is none."""
    while len(cache.layers) <= i:
        cache.layers.append(PrunedLayer())
    layer = cache.layers[i]
    if not isinstance(layer, PrunedLayer):
        check_prunable(cache)
        layer = cache.layers[i] = PrunedLayer(layer)  # type: ignore[arg-type]
    return layer


def is_pruned(cache: Cache | None) -> bool:
    """Whether a compressed prompt went into this cache."""
    layers = getattr(cache, "layers", None) or ()
    return any(isinstance(layer, PrunedLayer) and layer.kept is not None for layer in layers)


def forget_announced(cache: Cache | None) -> None:
    """After a call that failed: what was announced to a layer and did not come is not waited for."""
    for layer in getattr(cache, "layers", None) or ():
        if isinstance(layer, PrunedLayer):
            layer.coming = None
