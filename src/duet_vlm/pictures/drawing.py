"""How the picture of `visualize` is laid out with matplotlib."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from matplotlib.patches import Rectangle

from .legend import FAINT, INK, LAST, SALIENT, meanings

BAR, EMPTY = "#3d6fd6", "#e9edf4"
COLUMNS, TITLES = 4, 6
INCHES = {1: 6.4, 2: 4.9, 3: 4.2, 4: 3.3}  # width of a panel, by their number in a row
LINE = 9  # characters of the question per inch


@dataclass
class Marks:
    """What is drawn over a panel's image.

    Attributes:
        outlined: patches whose common border is drawn.
        anchors: patches framed in their cluster's colour.
        clusters: members of each anchor; they and it carry the cluster's number.
        colors: anchor -> (r, g, b).
        numbers: what an anchor and its cluster are called; 1, 2, ... in order, if None.
    """

    outlined: set[int]
    anchors: list[int]
    clusters: list[list[int]]
    colors: dict[int, tuple[float, float, float]]
    numbers: list[int] | None = None


@dataclass
class Panel:
    """One picture with its texts.

    Attributes:
        label: of its axes.
        heading: above it.
        text: below it.
        pixels: (H, W, 3) floats in [0, 1].
        grid: its rows and columns of patches.
        marks: what is drawn over it.
    """

    label: str
    heading: str
    text: str
    pixels: np.ndarray
    grid: tuple[int, int]
    marks: Marks | None = None


def compose(
    figure: Figure,
    rows: list[list[Panel]],
    words: list[tuple[str, str]],
    title: str,
    counts: list[int],
    whole: int,
    note: str = "",
) -> Figure:
    """Title, question, rows of panels, and the visual tokens of every decoder layer, `whole` of them uncompressed."""
    columns = max(map(len, rows))
    inches, around = INCHES.get(columns, 2.7), 0.55
    heights = [inches * max(panel.grid[0] / panel.grid[1] for panel in row) for row in rows]
    lines = wrap(words, int(LINE * columns * inches))
    width = columns * inches + 0.5
    titles = textwrap.wrap(title, int(7.8 * width), max_lines=TITLES, placeholder=" …")
    above = 0.28 * (len(titles) - 1)
    head, foot = above + 0.56 + 0.31 * len(lines) + 0.28 * bool(note), 1.75
    height = head + sum(heights) + len(rows) * around + foot
    figure.set_size_inches(width, height)
    figure.set_facecolor("white")
    left = 0.25 / width
    drawn = [panel for listed in rows for panel in listed if panel.marks is not None]
    entries = meanings([panel.label for panel in drawn], {kind for _, kind in words})
    per_row = len(entries) if sum(0.075 * len(str(e.get_label())) + 0.42 for e in entries) < width - 0.5 else 4
    style: dict[str, Any] = {"fontsize": 15, "fontweight": "bold", "color": INK, "va": "center"}
    for i, line in enumerate(titles):
        figure.text(left, 1 - (0.3 + 0.28 * i) / height, plain(line), **style)
    question(figure, lines, (left, 1 - (0.56 + above) / height))
    if note:
        figure.text(left, 1 - (head - 0.2) / height, plain(note), fontsize=10, color=FAINT, va="center")
    bottom = height - head + 0.26
    for tall, listed in zip(heights, rows, strict=True):
        bottom -= tall + around
        for column, panel in enumerate(listed):
            high = inches * panel.grid[0] / panel.grid[1] - 0.12
            low = bottom + tall - 0.12 - high
            box = (0.31 + column * inches) / width, low / height, (inches - 0.12) / width, high / height
            show(figure.add_axes(box, label=panel.label), panel)
    bars(figure, (0.7 / width, 0.64 / height, 1 - 1.05 / width, (foot - 0.95) / height), counts, whole)
    figure.legend(
        handles=entries, loc="lower left", bbox_to_anchor=(left, 0.0), ncols=max(1, per_row), frameon=False,
        fontsize=9, handlelength=1.2, columnspacing=1.6, labelcolor=FAINT, labelspacing=0.25,
    )  # fmt: skip
    return figure


def plain(text: str) -> str:
    """Text in which a dollar sign does not start a formula."""
    return text.replace("$", r"\$")


def wrap(words: list[tuple[str, str]], length: int) -> list[list[tuple[str, str]]]:
    """Words in lines of about `length` characters."""
    lines: list[list[tuple[str, str]]] = [[]]
    for word in words:
        if lines[-1] and sum(len(text) + 1 for text, _ in lines[-1]) + len(word[0]) > length:
            lines.append([])
        lines[-1].append(word)
    return lines


def question(figure: Figure, lines: list[list[tuple[str, str]]], corner: tuple[float, float]) -> None:
    """The words, the salient ones on a highlighter's stroke."""
    back = {"salient": SALIENT, "last": LAST}
    packed: list[Artist] = []
    for line in lines:
        texts: list[Artist] = []
        for text, kind in line:
            properties: dict[str, Any] = {"fontsize": 13, "color": INK if kind != "last" else FAINT}
            if kind in back:
                properties["bbox"] = {"facecolor": back[kind], "edgecolor": "none", "boxstyle": "round,pad=0.18"}
            texts.append(TextArea(plain(text), textprops=properties))
        packed.append(HPacker(children=texts, pad=0, sep=7, align="baseline"))
    box = VPacker(children=packed, pad=0, sep=7, align="left")
    anchored = AnchoredOffsetbox(
        loc="upper left", child=box, frameon=False, pad=0, borderpad=0, bbox_to_anchor=corner,
        bbox_transform=figure.transFigure,
    )  # fmt: skip
    figure.add_artist(anchored)


def show(axes: Any, panel: Panel) -> None:
    """One panel."""
    grid = panel.grid
    axes.imshow(panel.pixels.clip(0, 1), interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():  # a light picture has no edge of its own
        side.set(color=FAINT, linewidth=0.6)
    axes.set_title(panel.heading, loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
    axes.text(0, -0.02, panel.text, transform=axes.transAxes, fontsize=10, color=FAINT, va="top")
    marks, cell, columns = panel.marks, panel.pixels.shape[0] // grid[0], grid[1]
    if marks is None:
        return
    edges = borders(marks.outlined, grid, cell)
    for color, line in (("black", 2.2), ("white", 0.9)):  # seen on light pictures and on dark ones
        axes.add_collection(LineCollection(edges, colors=color, linewidths=line))
    size = 0.38 * 72 * axes.bbox.width / axes.figure.dpi / columns
    plate = {"facecolor": "black", "alpha": 0.72, "edgecolor": "none", "boxstyle": "round,pad=0.14"}
    numbers = marks.numbers or list(range(1, len(marks.anchors) + 1))
    for number, anchor, members in zip(numbers, marks.anchors, marks.clusters, strict=True):
        hue = marks.colors[anchor]
        row, column = divmod(anchor, columns)
        corner = (column * cell - 0.5, row * cell - 0.5)
        axes.add_patch(Rectangle(corner, cell, cell, fill=False, edgecolor=hue, linewidth=2.2, zorder=3))
        # colours alone do not tell dozens of clusters apart
        for patch in (anchor, *members):
            x, y = center(patch, columns, cell)
            axes.text(
                x, y, str(number), fontsize=size, color="white", ha="center", va="center_baseline", zorder=4,
                bbox=plate,  # readable over text, and on any colour
            )  # fmt: skip
    if not marks.outlined and not marks.anchors:
        axes.text(
            0.5, 0.5, "no visual token\nfrom here on", transform=axes.transAxes, ha="center", va="center",
            color="white", fontsize=13,
        )  # fmt: skip


def center(patch: int, columns: int, cell: int) -> tuple[float, float]:
    row, column = divmod(patch, columns)
    return (column + 0.5) * cell - 0.5, (row + 0.5) * cell - 0.5


def borders(patches: set[int], grid: tuple[int, int], cell: int) -> list[list[tuple[float, float]]]:
    """Line segments between these patches and all others."""
    (rows, columns), segments = grid, []
    for patch in patches:
        row, column = divmod(patch, columns)
        x, y = column * cell - 0.5, row * cell - 0.5
        if row == 0 or patch - columns not in patches:
            segments.append([(x, y), (x + cell, y)])
        if row == rows - 1 or patch + columns not in patches:
            segments.append([(x, y + cell), (x + cell, y + cell)])
        if column == 0 or patch - 1 not in patches:
            segments.append([(x, y), (x, y + cell)])
        if column == columns - 1 or patch + 1 not in patches:
            segments.append([(x + cell, y), (x + cell, y + cell)])
    return segments


def bars(figure: Figure, box: tuple[float, float, float, float], counts: list[int], whole: int) -> None:
    """Visual tokens in every decoder layer, before the background of the uncompressed ones."""
    axes = figure.add_axes(box, label="tokens")
    axes.bar(range(len(counts)), [whole] * len(counts), width=0.86, color=EMPTY)
    axes.bar(range(len(counts)), counts, width=0.86, color=BAR)
    for i, count in enumerate(counts):
        if i == 0 or count != counts[i - 1]:
            high = count > 0.8 * whole
            axes.annotate(
                str(count), (i - 0.43, count), (3, -3 if high else 2), textcoords="offset points", fontsize=9,
                color="white" if high else INK, va="top" if high else "bottom",
            )  # fmt: skip
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylim(0, whole)
    axes.set_xticks(range(0, len(counts), max(1, len(counts) // 16)))
    axes.set_yticks([0, whole])
    axes.tick_params(labelsize=8, colors=FAINT, length=0)
    axes.set_title("Visual tokens in each decoder layer", loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
