"""What a method kept, drawn on the image: one small picture per answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..shown import seen
from ..trace import SampleTrace, Trace
from ..visualize import CLS, patches_of

SIDE = 224  # pixels, about
GONE, MERGED = 0.2, (255, 150, 40)


def kept_picture(image: Any, trace: Trace | None, inputs: Any, processor: Any, config: Any) -> Any:
    """The image as the vision tower saw it; each patch as bright as the share of decoder layers it is in.

    Patches merged into a contextual token are tinted orange, what is in no layer is dark and grey.

    Args:
        image: the PIL picture.
        trace: of a single prompt; None where nothing was compressed.
        inputs: what the processor made of the prompt.
        processor, config: the model's.

    Returns:
        A PIL picture; None where tokens are no patches of one square image, so nothing can be drawn.
    """
    pixels = inputs.get("pixel_values")
    vision: Any = getattr(config, "vision_config", None)
    if pixels is None or pixels.ndim not in (4, 5) or not hasattr(vision, "patch_size"):
        return None
    grid = vision.image_size // vision.patch_size
    first = (pixels[0, 0] if pixels.ndim == 5 else pixels[0]).float().cpu()
    part = seen(image, first, processor.image_processor.image_mean, processor.image_processor.image_std)
    cell = max(1, SIDE // grid)
    base = np.asarray(part.convert("RGB").resize((cell * grid, cell * grid)), dtype=np.float32)
    if trace is None:
        return Image.fromarray(base.astype(np.uint8))
    try:
        places = patches_of(trace, grid * grid)
    except ValueError:
        return None
    share = presence(trace.samples[0], places, grid * grid)
    merged = np.zeros(grid * grid, dtype=bool)
    for cluster in trace.images[0].clusters if trace.images else []:
        merged[cluster] = True
    bright = np.kron(share.reshape(grid, grid), np.ones((cell, cell)))[..., None]
    tint = np.kron((merged & (share == 0)).reshape(grid, grid), np.ones((cell, cell)))[..., None]
    grey = base.mean(-1, keepdims=True).repeat(3, axis=-1)
    out = base * bright + GONE * grey * (1 - bright)
    out = np.where(tint > 0, 0.45 * grey + 0.2 * np.asarray(MERGED), out)
    return Image.fromarray(out.clip(0, 255).astype(np.uint8))


def presence(sample: SampleTrace, places: dict[int, int], patches: int) -> np.ndarray:
    """(patches,) the share of decoder layers that each patch's token is in, 0 to 1.

    Args:
        sample: of the prompt.
        places: place in the prompt -> patch.
        patches: of the image.
    """
    layers = len(sample.tokens_per_layer)
    share = np.zeros(patches)
    drops = sorted(sample.drops, key=lambda drop: drop.layer)
    stages = [(0, list(places)), *((drop.layer, drop.kept) for drop in drops if drop.layer > 0)]
    for (start, kept), end in zip(stages, [layer for layer, _ in stages[1:]] + [layers], strict=True):
        for place in kept:
            if places.get(place, CLS) != CLS:
                share[places[place]] += (end - start) / layers
    return share
