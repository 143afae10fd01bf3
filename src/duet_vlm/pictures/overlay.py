"""What a method kept, drawn on the image: one small picture per answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..engine.trace import SampleTrace, Trace
from ..errors import DuetError
from ..families import family_of
from .frames import seen
from .shading import GONE, MERGED, tinted
from .spread import CLS, patches_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

SIDE = 336  # pixels, about


def kept_picture(
    image: Any, trace: Trace | None, inputs: Any, processor: ProcessorMixin, config: PreTrainedConfig
) -> Any:
    """The image as the vision tower saw it; each patch fades into grey stripes as it is in fewer decoder layers.

    Patches merged into a contextual token are tinted orange; what is in no layer is grey stripes alone.

    Args:
        image: the PIL picture.
        trace: of a single prompt; None where nothing was compressed.
        inputs: what the processor made of the prompt.
        processor, config: the model's.

    Returns:
        A PIL picture; None where tokens are not the patches of the image, so nothing can be drawn.
    """
    family = family_of(config)
    if family.pixels_in(inputs, "image") is None:
        return None
    rows, columns = family.token_grid(config, inputs)
    crops = family.crops_in(inputs)
    if crops is not None:  # elsewhere flat patches of the whole picture
        how = processor.image_processor
        image = seen(image, crops[0].float().cpu(), how.image_mean, how.image_std)
    cell = max(1, SIDE // max(rows, columns))
    small = image.convert("RGB").resize((cell * columns, cell * rows))
    if trace is None:
        return small
    base = np.asarray(small, dtype=np.float32) / 255
    try:
        places = patches_of(trace, rows * columns)
    except DuetError:
        return None

    def pixelwise(values: np.ndarray) -> np.ndarray:
        return np.kron(values.reshape(rows, columns), np.ones((cell, cell)))[..., None]

    share = presence(trace.samples[0], places, rows * columns)
    merged = np.zeros(rows * columns, dtype=bool)
    for cluster in trace.images[0].clusters if trace.images else []:
        merged[cluster] = True
    bright, tint = pixelwise(share), pixelwise(merged & (share == 0))
    out = base * bright + tinted(base, GONE) * (1 - bright)
    out = np.where(tint > 0, tinted(base, MERGED, striped=False), out)
    return Image.fromarray((255 * out).round().astype(np.uint8))


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
