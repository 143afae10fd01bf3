"""Procedural scenes: 8 to 14 coloured shapes at free pixel offsets, some with digits, on textured backgrounds.

A scene is drawn with numpy alone and is a pure function of the random generator it is given.  Colours and shapes are
dealt out in groups of one to four, so that a scene holds repeats (things to count), unique objects (things to refer to)
and hard negatives (a colour and a shape that are both there, but not on one object).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .shapes import GLYPH_HEIGHT, GLYPH_WIDTH, digit_coverage, shape_coverage

IMAGE_SIZE = 112
PATCH_SIZE = 8
GRID = IMAGE_SIZE // PATCH_SIZE

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "ring", "heart")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BACKGROUNDS = ("plain", "stripes", "dots", "checks", "grid")

MIN_OBJECTS, MAX_OBJECTS = 8, 14
MIN_SIZE, MAX_SIZE = 12, 26
MIN_DIGIT_SIZE = 18
DIGIT_SHARE = 0.55
MIN_OBJECT_PIXELS = 8  # a patch belongs to an object when at least this many of its 64 pixels do
MIN_GLYPH_PIXELS = 14  # a patch shows a digit when at least this many of its pixels lie in the glyph's box

_RGB = np.array(
    [[215, 40, 40], [40, 165, 60], [50, 80, 220], [230, 215, 50], [150, 50, 185], [240, 140, 30], [60, 205, 215],
     [240, 240, 240]], np.float32)  # fmt: skip
_ROWS, _COLUMNS = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(np.float32)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object: indices into SHAPES and COLORS, its box (left, top, side in pixels), its digit or None.

    `glyph` is the left and top pixel of the digit's GLYPH_WIDTH x GLYPH_HEIGHT box, None without a digit.
    """

    shape: int
    color: int
    left: int
    top: int
    size: int
    digit: int | None
    glyph: tuple[int, int] | None

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle of the box, in pixels."""
        return self.left + self.size / 2, self.top + self.size / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene: `image` uint8 [112, 112, 3], `owner` int8 [112, 112] (object index per pixel, -1 elsewhere)."""

    image: np.ndarray
    owner: np.ndarray
    background: int
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, slots=True)
class PatchLabels:
    """What each of the 14 x 14 patches shows, arrays [196] in raster order.

    `owner`: object index or -1.  `center`: object whose centre lies in the patch, or -1.  `digit`: the digit whose
    glyph the patch shows, or -1; only patches that show it, not the rest of the object, carry it.
    """

    owner: np.ndarray
    center: np.ndarray
    digit: np.ndarray


def _background(rng: np.random.Generator, kind: int) -> np.ndarray:
    base = rng.uniform(45, 115) + rng.uniform(-14, 14, 3)
    amplitude, period = rng.uniform(12, 24), int(rng.integers(6, 14))
    x0, y0 = (float(v) for v in rng.uniform(0, period, 2))  # Python floats keep the arrays in float32
    if kind == 0:
        right, down = (float(v) for v in rng.uniform(-0.6, 0.6, 2))
        pattern = (right * _COLUMNS + down * _ROWS) / IMAGE_SIZE
    elif kind == 1:
        angle = int(rng.integers(0, 4)) * math.pi / 4
        wave = (_COLUMNS * math.cos(angle) + _ROWS * math.sin(angle) + x0) * (2 * math.pi / period)
        pattern = np.sign(np.sin(wave))
    elif kind == 2:
        dx, dy = (_COLUMNS + x0) % period - period / 2, (_ROWS + y0) % period - period / 2
        pattern = np.where(dx**2 + dy**2 < (period * 0.27) ** 2, 1.0, -1.0)
    elif kind == 3:
        pattern = ((_COLUMNS + x0) // period + (_ROWS + y0) // period) % 2 * 2 - 1
    else:
        pattern = np.where(((_COLUMNS + x0) % period < 2) | ((_ROWS + y0) % period < 2), 1.0, -0.5)
    return (base + float(amplitude) * pattern[..., None]).astype(np.float32)


def _add_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Grey specks and bars, drawn below the objects."""
    for _ in range(int(rng.integers(5, 12))):
        if rng.random() < 0.5:
            h, w = (int(v) for v in rng.integers(1, 6, 2))
        else:
            length = int(rng.integers(6, 26))
            h, w = (1, length) if rng.random() < 0.5 else (length, 1)
        y, x = int(rng.integers(0, IMAGE_SIZE - h)), int(rng.integers(0, IMAGE_SIZE - w))
        image[y : y + h, x : x + w] += rng.uniform(-55, 55)


def _deal(rng: np.random.Generator, kinds: int, count: int) -> np.ndarray:
    """`count` kinds in groups of one to four, shuffled: the group sizes are what counting questions ask for."""
    order = rng.permutation(kinds)
    dealt = np.repeat(order, rng.integers(1, 5, kinds))
    while len(dealt) < count:
        dealt = np.concatenate([dealt, order])
    return rng.permutation(dealt[:count])


def _place(rng: np.random.Generator, sizes: np.ndarray) -> list[tuple[int, int, int]]:
    """(left, top, size) for as many of the sizes as fit with boxes overlapping by at most two pixels."""
    placed = np.zeros((0, 3))
    for size in sizes:
        spots = rng.integers(0, IMAGE_SIZE - size + 1, (48, 2))
        gap = (placed[None, :, 2] + size) / 2 - 2
        distance = np.abs(spots[:, None] + size / 2 - placed[None, :, :2] - placed[None, :, 2:] / 2).max(-1)
        free = np.flatnonzero((distance >= gap).all(1))
        if len(free):
            placed = np.concatenate([placed, [[*spots[free[0]], size]]])
    return [(int(x), int(y), int(s)) for x, y, s in placed]


def make_scene(rng: np.random.Generator, fewest: int = MIN_OBJECTS, most: int = MAX_OBJECTS) -> Scene:
    """Draw one scene of `fewest` to `most` objects; equal generators give equal scenes."""
    background = int(rng.integers(0, len(BACKGROUNDS)))
    image = _background(rng, background)
    _add_clutter(rng, image)
    count = int(rng.integers(fewest, most + 1))
    while True:
        has_digit = rng.random(count) < DIGIT_SHARE
        sizes = np.where(has_digit, rng.integers(MIN_DIGIT_SIZE, MAX_SIZE + 1, count),
                         rng.integers(MIN_SIZE, MAX_SIZE + 1, count))  # fmt: skip
        boxes = _place(rng, np.sort(sizes)[::-1])  # large ones first, or they find no room
        if len(boxes) >= fewest:
            break
    shapes, colors = _deal(rng, len(SHAPES), len(boxes)), _deal(rng, len(COLORS), len(boxes))
    owner = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, np.int8)
    objects = []
    for i, (left, top, size) in enumerate(boxes):
        cover, support = shape_coverage(SHAPES[shapes[i]], size)
        rgb = np.clip(_RGB[colors[i]] * rng.uniform(0.82, 1.05) + rng.uniform(-12, 12, 3), 0, 255)
        area = image[top : top + size, left : left + size]
        area += (rgb - area) * cover
        owner[top : top + size, left : left + size][support] = i
        digit, glyph = None, None
        if size >= MIN_DIGIT_SIZE and rng.random() < 0.75:
            digit, glyph = _draw_digit(rng, image, left, top, size)
        objects.append(SceneObject(int(shapes[i]), int(colors[i]), left, top, size, digit, glyph))
    image += 5 * rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), owner, background, tuple(objects))


def _draw_digit(
    rng: np.random.Generator, image: np.ndarray, left: int, top: int, size: int
) -> tuple[int, tuple[int, int]]:
    """A white digit on a dark badge near the middle of the object, at a free pixel offset."""
    digit = int(rng.integers(0, 10))
    x = left + (size - GLYPH_WIDTH) // 2 + int(rng.integers(-1, 2))
    y = top + (size - GLYPH_HEIGHT) // 2 + int(rng.integers(-1, 2))
    image[y - 1 : y + GLYPH_HEIGHT + 1, x - 1 : x + GLYPH_WIDTH + 1] = rng.uniform(0, 25)
    area = image[y : y + GLYPH_HEIGHT, x : x + GLYPH_WIDTH]
    area += (245.0 - area) * digit_coverage(digit)
    return digit, (x, y)


def patch_labels(scene: Scene) -> PatchLabels:
    """What each patch shows; see PatchLabels."""
    n, patches = len(scene.objects), GRID * GRID
    index = (_ROWS.astype(np.int64) // PATCH_SIZE) * GRID + _COLUMNS.astype(np.int64) // PATCH_SIZE
    counts = np.bincount((index * (n + 1) + scene.owner + 1).ravel(), minlength=patches * (n + 1))
    counts = counts.reshape(patches, n + 1)[:, 1:]
    owner = np.where(counts.max(1) >= MIN_OBJECT_PIXELS, counts.argmax(1), -1)
    center, digit = np.full(patches, -1), np.full(patches, -1)
    for i, item in enumerate(scene.objects):
        x, y = item.center
        middle = int(y) // PATCH_SIZE * GRID + int(x) // PATCH_SIZE
        center[middle] = owner[middle] = i
        if item.glyph is not None and item.digit is not None:
            pixels = np.outer(_overlap(item.glyph[1], GLYPH_HEIGHT), _overlap(item.glyph[0], GLYPH_WIDTH)).ravel()
            where = pixels >= MIN_GLYPH_PIXELS
            digit[where], owner[where] = item.digit, i
    return PatchLabels(owner, center, digit)


def _overlap(start: int, length: int) -> np.ndarray:
    """Pixels that [start, start + length) shares with each of the 14 patch rows (or columns)."""
    edges = np.arange(GRID) * PATCH_SIZE
    return np.clip(np.minimum(edges + PATCH_SIZE, start + length) - np.maximum(edges, start), 0, None)
