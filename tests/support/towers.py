"""What a stock tower attends to and which keys it makes, and stage 1 of docs/method.md done by hand on them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import oracle
import torch
from torch import Tensor, nn

from duet_vlm.engine.trace import ImageTrace

Seen = tuple[Tensor, Tensor, Any]


@torch.no_grad()
def look(model: Any, attention: nn.Module, keys: nn.Module, call: Callable[[], Any], heads: int = 4) -> Seen:
    """(B, H, n, n) eager attention maps of the stock tower, its (B, n, d) keys averaged over heads, and the result.

    Args:
        attention: the scoring layer's attention module.
        keys: the module in it whose output the keys are.
    """
    maps, found = [], []
    handles = [
        attention.register_forward_hook(lambda m, a, out: maps.append(out[1])),
        keys.register_forward_hook(lambda m, a, out: found.append(out)),
    ]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        result = call()
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
    return torch.cat(maps), torch.cat(found).unflatten(2, (heads, -1)).mean(2), result


def received(maps: Tensor) -> Tensor:
    """(B, H, n, n) -> (B, n)."""
    return maps.mean(1).sum(1)


def squares(x: Tensor, side: int, width: int) -> Tensor:
    """(n,) or (n, d) of side x side patches -> the mean of every width x width square, squares in raster order."""
    out = []
    for row in range(0, side, width):
        for column in range(0, side, width):
            patches = [r * side + c for r in range(row, row + width) for c in range(column, column + width)]
            out.append(x[patches].mean(0))
    return torch.stack(out)


def agrees(
    image: ImageTrace, scores: Tensor, keys: Tensor, dominant: int, contextual: int, width: int
) -> dict[str, Any]:
    """Hold one image of a trace against docs/method.md; returns what it decides."""
    torch.testing.assert_close(torch.tensor(image.scores), scores.float(), atol=1e-5, rtol=1e-4)
    decided = oracle.stage_1(scores.tolist(), keys.tolist(), dominant, contextual, width)
    assert image.dominant == decided["dominant"]
    assert image.anchors == decided["anchors"]
    assert [sorted(cluster) for cluster in image.clusters] == [sorted(cluster) for cluster in decided["clusters"]]
    return decided


def in_place(features: Tensor, decided: dict[str, Any]) -> Tensor:
    """(n, D) stock features -> what stage 1 leaves: dominant and contextual tokens in place, zeros elsewhere."""
    out = torch.zeros_like(features)
    out[decided["dominant"]] = features[decided["dominant"]]
    out[decided["anchors"]] = oracle.contextual(features, decided["anchors"], decided["clusters"])
    return out


class Alive:
    """Stands in for a function that makes attention statistics; notes the bytes alive at two of its calls."""

    def __init__(self, function: Callable[..., Any], calls: tuple[int, int]):
        self.function, self.calls, self.count, self.bytes, self.images = function, calls, 0, [], set()

    def __call__(self, attention: Any, hidden: Tensor) -> Any:
        if self.count in self.calls:
            gc.collect()
            tensors = [x for x in gc.get_objects() if type(x) is Tensor]
            storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
            self.bytes.append(sum(storages.values()))
        self.count += 1
        self.images.add(len(hidden))
        return self.function(attention, hidden)

    @property
    def growth(self) -> float:
        """Bytes that an image leaves behind."""
        return (self.bytes[1] - self.bytes[0]) / (self.calls[1] - self.calls[0])
