"""The shapes and digits of a scene, as coverage of pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

GLYPH_HEIGHT, GLYPH_WIDTH = 10, 7

_FONT = (
    "01110 10001 10011 10101 11001 10001 01110", "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111", "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010", "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110", "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110", "01110 10001 10001 01111 00001 00010 01100",
)  # fmt: skip


@cache
def shape_coverage(shape: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Anti-aliased coverage [size, size] in 0..1 of a shape, and its filled-in support (bool)."""
    n = size * 4
    picture = Image.new("L", (n, n), 0)
    draw, c = ImageDraw.Draw(picture), n / 2
    if shape in ("circle", "ring"):
        draw.ellipse([0, 0, n - 1, n - 1], fill=255)
    elif shape == "square":
        draw.rectangle([n * 0.05, n * 0.05, n * 0.95, n * 0.95], fill=255)
    elif shape == "triangle":
        draw.polygon([(c, 0), (n - 1, n - 1), (0, n - 1)], fill=255)
    elif shape == "diamond":
        draw.polygon([(c, 0), (n - 1, c), (c, n - 1), (0, c)], fill=255)
    elif shape == "cross":
        a = n * 0.3
        draw.rectangle([a, 0, n - a, n], fill=255)
        draw.rectangle([0, a, n, n - a], fill=255)
    elif shape == "star":
        angles = -np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, c, c * 0.45)
        draw.polygon(
            [(float(c + r * np.cos(t)), float(c + r * np.sin(t))) for r, t in zip(radii, angles, strict=True)], fill=255
        )
    else:
        draw.ellipse([0, 0, n * 0.54, n * 0.54], fill=255)
        draw.ellipse([n * 0.46, 0, n - 1, n * 0.54], fill=255)
        draw.polygon([(n * 0.05, n * 0.4), (n * 0.95, n * 0.4), (c, n - 1)], fill=255)
    small = picture.resize((size, size), Image.Resampling.BOX)
    support = np.asarray(small, np.float32) > 127
    if shape == "ring":
        a = n * 0.2
        draw.ellipse([a, a, n - a, n - a], fill=0)
        small = picture.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32)[..., None] / 255, support


@cache
def digit_coverage(digit: int) -> np.ndarray:
    """Coverage [GLYPH_HEIGHT, GLYPH_WIDTH, 1] in 0..1 of a digit."""
    bits = np.array([[int(c) for c in row] for row in _FONT[digit].split()], np.uint8) * 255
    large = Image.fromarray(bits).resize((GLYPH_WIDTH * 5, GLYPH_HEIGHT * 7), Image.Resampling.NEAREST)
    return np.asarray(large.resize((GLYPH_WIDTH, GLYPH_HEIGHT), Image.Resampling.BOX), np.float32)[..., None] / 255
