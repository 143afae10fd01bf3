"""Several processes train together: each runs the same modules in the same order, whatever its samples hold.

Sharded weights are gathered, and gradients exchanged, where a module runs. A process whose batch is text alone would
skip the vision tower and the rankings, and the others would wait for it for ever.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.distributed import get_world_size, is_available, is_initialized

from ..families.encoding import for_engine


def is_needed(core: Any) -> bool:
    """Whether this forward is one of several that train together."""
    return bool(core.training) and is_available() and is_initialized() and get_world_size() > 1


def encode_blank(core: Any) -> Tensor:
    """Encode a blank image and give 0, with a gradient of 0 for whatever an image's features come from."""
    with for_engine():
        output = core.get_image_features(**blank_image(core), return_dict=True)
    features = [*output.pooler_output, *_flat(getattr(output, "deepstack_features", None) or ())]
    return torch.stack([(part * 0).sum() for part in features]).sum()


def blank_image(core: Any) -> dict[str, Any]:
    """Arguments of `get_image_features` for one image without content, as small as the model takes them."""
    config, vision = core.config, core.config.vision_config
    weight = next(core.parameters())
    wanted = inspect.signature(core.get_image_features).parameters
    if "image_grid_thw" in wanted:
        side = 4 * vision.spatial_merge_size
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        pixels = torch.ones(side * side, width)
        sizes: dict[str, Any] = {"image_grid_thw": torch.tensor([[1, side, side]], device=weight.device)}
    else:
        height, width = _pair(vision.image_size)
        shape, sizes = [1, getattr(vision, "num_channels", 3), height, width], {}
        grids = getattr(config, "image_grid_pinpoints", None)
        if grids:
            smallest = min(grids, key=lambda grid: grid[0] * grid[1])
            shape.insert(1, 1 + (smallest[0] // height) * (smallest[1] // width))
            sizes["image_sizes"] = torch.tensor([smallest], device=weight.device)
        pixels = torch.ones(shape)  # some towers take zeros for padding
        if "pixel_attention_mask" in wanted:  # images of a prompt are an axis of their own
            pixels = pixels[None]
    name = "pixel_values_images" if "pixel_values_images" in wanted else "pixel_values"
    return {name: pixels.to(weight.device, weight.dtype), **sizes}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _flat(parts: Any) -> list[Tensor]:
    """Tensors of nested lists and tuples."""
    return [parts] if isinstance(parts, Tensor) else [x for part in parts for x in _flat(part)]
