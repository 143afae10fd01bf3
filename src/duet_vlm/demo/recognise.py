"""Whether a picture is one of the drawn scenes, which are all that the demonstration model knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .scenes import IMAGE_SIZE

NEAR, BIN = 6, 4  # of 255: what a JPEG does to the difference of two channels; the width of a bin of differences


def is_scene(image: Any) -> bool:
    """Whether a PIL picture looks like a drawn scene, enlarged or not.

    Pattern, clutter and noise of a scene's background change all three channels alike, so on more than half of its
    pixels they differ by the same small amounts; it is rather dark and even, and what stands on it has colours.
    """
    from PIL import Image

    small = image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16).reshape(-1, 3)
    differences = pixels[:, :2] - pixels[:, 1:]
    counts = np.zeros((512 // BIN, 512 // BIN))
    np.add.at(counts, tuple((differences // BIN + 256 // BIN).T), 1)
    together = sum(np.roll(counts, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    bins = np.array(np.unravel_index(np.argmax(together), counts.shape)) - 256 // BIN
    middle = BIN * bins + (BIN - 1) / 2
    ground = (np.abs(differences - middle) <= NEAR).all(1)
    if not 0.5 <= ground.mean() <= 0.93 or np.abs(middle).max() > 32:
        return False
    brightness, objects = pixels[ground].mean(1), pixels[~ground]
    colour = np.percentile(objects.max(1) - objects.min(1), 75)
    return bool(20 <= brightness.mean() <= 130 and brightness.std() < 60 and colour > 25)
