"""Positions of each layer's own, for vLLM's forward, which hands one row of positions to all of its layers.

Where positions close the gaps of a drop, a token stands elsewhere in every stage. Its places are written into buffers
before that forward begins, and rotary embeddings read them there. So a step that drops nothing is vLLM's own forward,
compiled where vLLM compiles it, and its graph is the same for any settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rotated = tuple[Tensor, Tensor | None]


class _Rotary(nn.Module):
    """A layer's rotary embedding, which looks up where tokens stand.

    Attributes:
        stock: the embedding.
        places: (longest,) or (axes, longest), of which as many are read as there are tokens.
    """

    places: Tensor

    def __init__(self, stock: nn.Module, places: Tensor):
        super().__init__()
        self.stock = stock
        self.register_buffer("places", places, persistent=False)

    def forward(self, positions: Tensor, *args: Any, **kwargs: Any) -> Rotated:
        rotated: Rotated = self.stock(self.places[..., : positions.shape[-1]], *args, **kwargs)
        return rotated


class StagePositions:
    """Where the tokens of a step stand in each layer."""

    def __init__(self, layers: Sequence[Any], stages: Sequence[int], longest: int, axes: int):
        """Have the rotary embeddings of the layers look here.

        Args:
            layers: of the decoder.
            stages: the stage of each.
            longest: the most tokens of a step.
            axes: of a position.
        """
        longest += 1  # never as many as there are tokens: a compiler would take the two for one number
        size = (len(layers), longest) if axes == 1 else (len(layers), axes, longest)
        self._all = torch.zeros(size, dtype=torch.long)
        self._stages = torch.tensor(stages)
        for layer, places in zip(layers, self._all, strict=True):
            layer.self_attn.rotary_emb = _Rotary(layer.self_attn.rotary_emb, places)

    def write(self, positions: Tensor, places: Mapping[int, Tensor] | None = None) -> None:
        """Say where the tokens of the next forward stand.

        Args:
            positions: (N,) or (axes, N), vLLM's.
            places: of every stage behind the first, (n,) of the n <= N that are no padding; None where they are vLLM's.
        """
        if not places:
            self._all[..., : positions.shape[-1]] = positions
            return
        tokens = len(places[1])
        first = positions[..., :tokens]
        others = [places[stage].to(first.dtype).expand_as(first) for stage in range(1, len(places) + 1)]
        self._all[..., :tokens] = torch.stack([first, *others])[self._stages]
