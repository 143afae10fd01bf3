"""A video of moving colours, as an array and as a clip; the families that take one."""

from __future__ import annotations

import numpy as np


def video(frames: int = 3, height: int = 45, width: int = 80) -> np.ndarray:
    y, x, t = np.mgrid[:height, :width, :frames]
    red, green = (3 * x + 5 * y + 40 * t) % 256, (x * y // 4 + 90 * t) % 256
    blue = np.where((x // 9 + y // 7 + t) % 2, 230, 15)
    return np.stack([red, green, blue], -1).transpose(2, 0, 1, 3).astype(np.uint8)
