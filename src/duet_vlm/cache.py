"""A key-value cache whose layers hold different parts of the tokens seen. The only user of `cache_utils`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from .errors import CacheError, DuetError
from .proportional import followed


class PrunedLayer(DynamicLayer):
    """Keys and values of some of the tokens seen; `kept` says which.

    Lengths are those of the full sequence, as in a sliding-window layer, so everything transformers derives from
    them (masks, positions, slicing of `input_ids`) stays right. Decoding drops nothing, so the tokens after `kept`
    are only counted, in `tail`.

    Attributes:
        kept: (B, n) places in the full sequence, -1 for a hole; None before the first prefill.
        removed: (B, 1) how many visual tokens each row is missing here, for renumbered positions.
        holes: whether `kept` has any.
        tail: how many tokens came after `kept`, all of them stored.
        length: tokens of the full sequence seen so far.
        log_sizes: (B, <= length) by place, what is added to the logits of a key; None for nothing.
    """

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.kept: Tensor | None = None
        self.removed: Tensor | None = None
        self.holes = False
        self.tail = 0
        self.length = 0
        self.log_sizes: Tensor | None = None
        self._announced = False
        if layer.keys is not None and layer.values is not None and layer.get_seq_length():
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values
            self.length = layer.keys.shape[-2]
            self.kept = torch.arange(self.length, device=layer.keys.device).expand(layer.keys.shape[0], -1)
            self.removed = torch.zeros_like(self.kept[:, :1])

    def announce(
        self, kept: Tensor, length: int, holes: bool, removed: Tensor, log_sizes: Tensor | None = None
    ) -> None:
        """Before a prefill's `update`: what comes of `length` tokens, `kept` (counted from the first of them).

        Args:
            removed: (B, 1) how many visual tokens each row lost of them.
            log_sizes: (B, length) what is added to the logits of each of them; None for nothing.
        """
        self.log_sizes = followed(self.log_sizes, self.length, log_sizes)
        if self.kept is not None and self.removed is not None:
            kept = torch.cat([self.columns(), torch.where(kept < 0, -1, kept + self.length)], dim=1)
            removed = self.removed + removed
        self.kept, self.removed, self.tail, self.length = kept, removed, 0, self.length + length
        self.holes, self._announced = self.holes or holes, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self._announced:
            self.tail, self.length = self.tail + key_states.shape[-2], self.length + key_states.shape[-2]
            return super().update(key_states, value_states, *args, **kwargs)
        self._announced = False
        assert self.kept is not None
        coming = self.kept.shape[1] - super().get_seq_length()
        seen = super().update(key_states[:, :, :coming], value_states[:, :, :coming], *args, **kwargs)
        # filler, which comes with a first prefill only, is worked on and not stored
        return seen if key_states.shape[-2] == coming else (key_states, value_states)

    def columns(self, coming: int = 0) -> Tensor:
        """(B, kv) place of every key stored, and of `coming` more."""
        assert self.kept is not None
        tail = torch.arange(self.length - self.tail, self.length + coming, device=self.kept.device)
        return torch.cat([self.kept, tail.expand(self.kept.shape[0], -1)], dim=1) if len(tail) else self.kept

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def reset(self) -> None:
        super().reset()
        self.kept = self.removed = self.log_sizes = None
        self.tail, self.length, self.holes = 0, 0, False

    def crop(self, tokens_to_remove: int) -> None:
        n = abs(tokens_to_remove)
        if n > self.tail:
            columns = self.columns()
            ending = torch.arange(self.length - n, self.length, device=columns.device)
            if columns.shape[1] < n or not bool((columns[:, columns.shape[1] - n :] == ending).all()):
                raise DuetError(
                    f"the cache cannot give back its last {n} tokens: visual tokens were dropped among them; "
                    "start a new cache."
                )
            self.kept, self.tail = columns[:, : columns.shape[1] - n], n
        super().crop(-n)
        self.tail, self.length = self.tail - n, self.length - n
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
        if self.kept is not None and self.removed is not None:
            self.kept, self.removed = change(self.kept), change(self.removed)
        if self.log_sizes is not None:
            self.log_sizes = change(self.log_sizes)


def check_prunable(cache: Cache) -> None:
    """Refuse, before anything changes, a cache whose layers cannot hold different parts of the sequence."""
    for layer in cache.layers:
        if isinstance(layer, PrunedLayer) or type(layer) is DynamicLayer:
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


def make_prunable(cache: Cache, layers: int) -> None:
    """Turn every layer of a dynamic cache into a `PrunedLayer`.

    Raises:
        TypeError: a static or quantised cache; it is left as it was.
    """
    check_prunable(cache)
    cache.layers.extend(DynamicLayer() for _ in range(layers - len(cache.layers)))
    for i, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and not isinstance(layer, PrunedLayer):
            cache.layers[i] = PrunedLayer(layer)


def is_pruned(cache: Cache | None) -> bool:
    """Whether a compressed prefill went into this cache."""
    return cache is not None and bool(cache.layers) and isinstance(cache.layers[0], PrunedLayer)
