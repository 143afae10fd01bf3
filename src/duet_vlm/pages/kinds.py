"""The five kinds of pages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import words
from .paper import PAGE_SIZE, TEXT_SIZE, Entry, Page, Paper

ROW = 16  # pixels from one line of text to the next
CELLS = 3  # rows and columns of a screen


def receipt(rng: np.random.Generator) -> Page:
    """A shop's name, items with their prices, and their total."""
    paper, count = Paper(rng), int(rng.integers(3, 7))
    y = paper.lower((count + 2) * ROW + 7)
    paper.write(words.several(rng, words.TITLES, 1)[0], PAGE_SIZE / 2, y, "middle", bold=True)
    y += ROW + 2
    prices = words.numbers(rng, count)
    entries = []
    for key, price in zip(words.several(rng, words.ITEMS, count), prices, strict=True):
        entries.append(_line(paper, key, (str(price),), y))
        y += ROW
    paper.line((paper.left, y, paper.right, y))
    entries.append(_line(paper, words.TOTAL, (str(sum(prices)),), y + 3))
    return paper.page("receipt", ("price",), entries)


def table(rng: np.random.Generator) -> Page:
    """A head, and rows of an item with two numbers."""
    paper, count = Paper(rng), int(rng.integers(3, 8))
    heads = words.several(rng, words.HEADS, 2)
    middle = paper.left + int(0.68 * (paper.right - paper.left))
    columns = (middle, paper.right)
    y = paper.lower((count + 1) * ROW + 2)
    for head, x in zip(heads, columns, strict=True):
        paper.write(head, x, y, "right", bold=True)
    first, second = words.numbers(rng, count), words.numbers(rng, count)
    y += ROW
    paper.line((paper.left, y, paper.right, y), 0.8)
    entries = []
    for key, *values in zip(words.several(rng, words.ITEMS, count), first, second, strict=True):
        there = paper.write(key, paper.left, y + 2)
        boxes = [paper.write(str(value), x, y + 2, "right") for value, x in zip(values, columns, strict=True)]
        entries.append(Entry(key, tuple(map(str, values)), there, tuple(boxes)))
        y += ROW
        paper.line((paper.left, y, paper.right, y), 0.3)
    return paper.page("table", tuple(heads), entries)


def form(rng: np.random.Generator) -> Page:
    """Labels with a colon, and framed numbers beside them."""
    paper, count = Paper(rng), int(rng.integers(3, 8))
    y = paper.lower(count * (ROW + 4))
    x = paper.left + int(rng.integers(60, 72))
    entries = []
    labels = words.several(rng, words.LABELS, count)
    for key, value in zip(labels, words.numbers(rng, count), strict=True):
        left, top, right, bottom = paper.write(f"{key}:", paper.left, y)
        paper.box((x - 4, y - 1, paper.right, y + TEXT_SIZE + 4), 0.35)
        entries.append(Entry(key, (str(value),), (left, top, right, bottom), (paper.write(str(value), x, y),)))
        y += ROW + 4
    return paper.page("form", ("number",), entries)


def plot(rng: np.random.Generator) -> Page:
    """Bars to the right, each with its name before it and its value behind it."""
    paper, count = Paper(rng), int(rng.integers(3, 8))
    y = top = paper.lower(count * (ROW + 3) + 2)
    start, room = paper.left + 54, paper.right - paper.left - 54 - 28
    values = words.numbers(rng, count)
    entries = []
    for key, value in zip(words.several(rng, words.ITEMS, count), values, strict=True):
        there = paper.write(key, start - 4, y, "right")
        end = start + max(2, round(room * value / max(values)))
        paper.box((start, y + 2, end, y + TEXT_SIZE + 1), 0.55, full=True)
        entries.append(Entry(key, (str(value),), there, (paper.write(str(value), end + 3, y),)))
        y += ROW + 3
    paper.line((start - 1, top - 2, start - 1, y), 0.9)
    return paper.page("plot", ("value",), entries)


def screen(rng: np.random.Generator) -> Page:
    """A title bar, and buttons in some cells of a grid of 3 x 3."""
    paper, count = Paper(rng, dark=bool(rng.random() < 0.5)), int(rng.integers(3, 9))
    paper.box((0, 0, PAGE_SIZE, ROW + 2), 0.15, full=True)
    paper.write(words.several(rng, words.TITLES, 1)[0], paper.left, 2, bold=True)
    side, high = PAGE_SIZE / CELLS, (PAGE_SIZE - ROW - 2) / CELLS
    cells = sorted(int(cell) for cell in rng.permutation(CELLS * CELLS)[:count])
    entries = []
    for key, cell in zip(words.several(rng, words.ACTIONS, count), cells, strict=True):
        x = (cell % CELLS + 0.5) * side + int(rng.integers(-2, 3))
        y = round(ROW + 2 + (cell // CELLS + 0.5) * high) - TEXT_SIZE // 2 + int(rng.integers(-8, 9))
        left, top, right, bottom = there = paper.write(key, x, y, "middle")
        paper.box((left - 3, top - 2, right + 3, bottom + 2), 0.5)
        entries.append(Entry(key, (), there))
    return paper.page("screen", (), entries)


def cell_of(entry: Entry) -> tuple[int, int]:
    """(row, column) of a button, each 0 to 2."""
    left, top, right, bottom = entry.key_box
    row = int(((top + bottom) / 2 - ROW - 2) / ((PAGE_SIZE - ROW - 2) / CELLS))
    return row, int((left + right) / 2 / (PAGE_SIZE / CELLS))


def _line(paper: Paper, key: str, values: tuple[str, ...], y: int) -> Entry:
    there = paper.write(key, paper.left, y)
    return Entry(key, values, there, tuple(paper.write(value, paper.right, y, "right") for value in values))


KINDS: dict[str, Callable[[np.random.Generator], Page]] = {
    "receipt": receipt, "table": table, "form": form, "plot": plot, "screen": screen,
}  # fmt: skip


def make_page(rng: np.random.Generator, kind: str | None = None) -> Page:
    """Draw a page, of a kind drawn at random or of the one named; equal generators give equal pages."""
    drawn = tuple(KINDS)[int(rng.integers(0, len(KINDS)))]
    return KINDS[kind or drawn](rng)
