"""Several processes train together: each runs the same modules in the same order, whatever its samples hold.

Sharded weights are gathered, and gradients exchanged, where a module runs. A process whose batch is text alone would
skip the vision tower and the rankings, and the others would wait for it for ever.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed import get_world_size, is_available, is_initialized

from ..families import family_of
from ..families.audience import for_engine
from ..host.types import Core


def is_needed(core: Core) -> bool:
    """Tell whether this forward pass is one of several processes that train together."""
    return bool(core.training) and is_available() and is_initialized() and get_world_size() > 1


def encode_blank(core: Core) -> Tensor:
    """Encode a blank image and give 0, with a gradient of 0 for whatever an image's features come from."""
    if not hasattr(core, "get_image_features"):  # it hears and sees nothing
        return next(core.parameters()).new_zeros(())
    with for_engine():
        output = core.get_image_features(**blank_image(core), return_dict=True)
    features = [*family_of(core.config).entries(output), *_flat(getattr(output, "deepstack_features", None) or ())]
    return torch.stack([(part * 0).sum() for part in features]).sum()


def blank_image(core: Core) -> dict[str, Tensor]:
    """Arguments of `get_image_features` for one image without content, as small as the model takes them."""
    weight = next(core.parameters())
    blank = family_of(core.config).blank_image(core.config)
    return {k: x.to(weight.device, weight.dtype if x.is_floating_point() else None) for k, x in blank.items()}


def _flat(parts: Any) -> list[Tensor]:
    """Tensors of nested lists and tuples, which may hold numbers too."""
    if isinstance(parts, list | tuple):
        return [x for part in parts for x in _flat(part)]
    return [parts] if isinstance(parts, Tensor) else []
