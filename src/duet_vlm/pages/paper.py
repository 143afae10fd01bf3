"""What a page is drawn on: paper, ink and text at free pixel offsets, and where every word came to stand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PAGE_SIZE = 160  # pixels a side: 400 patches of 8 x 8
FACES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSans-Bold")
TEXT_SIZE = 12  # pixels of an em: a character is about as wide as a patch

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two excluded


@cache
def font(face: str, size: int = TEXT_SIZE) -> FreeTypeFont:
    """A face of `FACES`, as matplotlib brings it; laid out by Pillow alone, so equal everywhere."""
    import matplotlib
    from PIL import ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a page says: a key, and what stands beside it.

    Attributes:
        key: the word.
        values: numbers or a word, one for every head of the page's columns; empty on screens.
        key_box: where the key stands.
        value_boxes: where its values stand.
    """

    key: str
    values: tuple[str, ...]
    key_box: Box
    value_boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A drawn page.

    Attributes:
        kind: one of `KINDS`.
        image: uint8 [160, 160, 3].
        heads: what the values of an entry are, such as "price"; as many as an entry has values.
        entries: from the top down, and from the left to the right.
        words: every word on the page, heads and titles included.
        texts: (word or number, where it stands), all of them, in the order in which they were written.
    """

    kind: str
    image: np.ndarray
    heads: tuple[str, ...]
    entries: tuple[Entry, ...]
    words: frozenset[str]
    texts: tuple[tuple[str, Box], ...]


class Paper:
    """A page while it is drawn. Equal generators draw equal pages.

    Attributes:
        face: of its text.
        right: the pixel that texts on the right end at.
        texts: what was written so far, each with its box.
    """

    def __init__(self, rng: np.random.Generator, dark: bool = False):
        self.rng = rng
        light, ink = float(rng.uniform(190, 250)), float(rng.uniform(0, 60))
        self.paper, self.ink = (ink, light) if dark else (light, ink)
        self.face = FACES[int(rng.integers(0, 2))]
        self._image = Image.new("L", (PAGE_SIZE, PAGE_SIZE), round(self.paper))
        self._draw = ImageDraw.Draw(self._image)
        self.left, self.top = int(rng.integers(3, 9)), int(rng.integers(3, 8))
        self.right = PAGE_SIZE - int(rng.integers(3, 9))
        self.texts: list[tuple[str, Box]] = []

    def lower(self, height: int) -> int:
        """The first line's place, drawn from those that leave `height` pixels below it."""
        return int(self.rng.integers(self.top, max(self.top + 1, PAGE_SIZE - height - 3)))

    def write(self, text: str, x: float, y: int, side: str = "left", bold: bool = False) -> Box:
        """Write a text and tell its box. `x` is its left end, its middle or its right end, by `side`."""
        used = font(FACES[2] if bold else self.face)
        width = round(used.getlength(text))
        left = round({"left": x, "middle": x - width / 2, "right": x - width}[side])
        self._draw.text((left, y), text, fill=round(self.ink), font=used)
        there = left, y, left + width, y + TEXT_SIZE + 2
        self.texts.append((text.rstrip(":"), there))
        return there

    def line(self, box: Box, part: float = 0.5) -> None:
        """Draw a line between the corners, `part` of the way from paper to ink."""
        self._draw.line(box, fill=self._between(part))

    def box(self, box: Box, part: float = 0.5, full: bool = False) -> None:
        """Draw a frame, or an area."""
        left, top, right, bottom = box
        shade = self._between(part)
        self._draw.rectangle((left, top, right - 1, bottom - 1), fill=shade if full else None, outline=shade)

    def _between(self, part: float) -> int:
        return round(self.paper + (self.ink - self.paper) * part)

    def page(self, kind: str, heads: tuple[str, ...], entries: list[Entry]) -> Page:
        """The page as it is read: tinted, with the grain of a scan."""
        tint = self.rng.uniform(0.94, 1.0, 3).astype(np.float32)
        grain = 4 * self.rng.standard_normal((PAGE_SIZE, PAGE_SIZE, 1), np.float32)
        image = np.asarray(self._image, np.float32)[..., None] * tint + grain
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        words = frozenset(text for text, _ in self.texts)
        return Page(kind, pixels, heads, tuple(entries), words, tuple(self.texts))
