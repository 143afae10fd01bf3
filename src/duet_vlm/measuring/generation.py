"""What a call of `generate` cost: when its tokens came, and what a token takes in its cache."""

from __future__ import annotations

import time
from typing import Any

from transformers.generation.streamers import BaseStreamer


class TokenTimes(BaseStreamer):
    """A streamer that notes when the tokens of a batch come.

    Attributes:
        times: in seconds; the first is the prompts', the second the first tokens', the last the end's.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        self.times.append(time.perf_counter())


def bytes_per_token(cache: Any) -> list[int]:
    """Bytes of one token's key and value in one row, in every layer of a cache (B, heads, n, width); 0 without keys."""
    parts = [(layer.keys, layer.values) if hasattr(layer, "keys") else () for layer in cache.layers]
    return [sum(int(part[0, :, 0].numel() * part.element_size()) for part in layer) for layer in parts]
