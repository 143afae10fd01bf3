"""Accuracy over tokens and over time, and per category, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console.tables import several
from ..pictures.drawing import plain
from ..pictures.legend import FAINT, INK
from .runs import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARETO, CATEGORIES = "pareto.png", "categories.png"
DPI = 150
# seven that people with any colour vision tell apart (Okabe and Ito), and as 7 and 12 share no divisor, no pair of a
# colour and a shape comes twice among 84 methods
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1d2433")
HAIR = "#aeb6c4"
MARKERS = "osD^vP*Xph<>"
SPREAD = 0.06  # of the axis: how far the intervals of all methods stand apart
FEW = 10  # questions of a category, below which its cell is an outline


def write_plots(results: dict[str, Any], folder: Path) -> None:
    """Both pictures; the second one only where records have categories."""
    pareto(results).savefig(folder / PARETO, dpi=DPI)
    (folder / CATEGORIES).unlink(missing_ok=True)
    if results["runs"][0]["categories"]:
        categories(results).savefig(folder / CATEGORIES, dpi=DPI)


def methods_of(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Method -> its runs from the largest budget to the smallest, without the full model."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["method"] != FULL:
            by_method.setdefault(run["method"], []).append(run)
    return {name: sorted(rows, key=lambda row: -row["tokens_avg"]) for name, rows in by_method.items()}


def height_of(run: dict[str, Any]) -> float:
    """Percent of the full model's accuracy, or the accuracy in percent where that is zero."""
    return float(100 * run["accuracy"] if run["retained"] is None else run["retained"])


def milliseconds(run: dict[str, Any]) -> float:
    """Of one answer."""
    return float(1000 * run["seconds"] / run["n"])


def pareto(results: dict[str, Any]) -> Figure:
    """Accuracy over the layer average of visual tokens, and over the time of an answer.

    Points alone, since nothing was measured between two budgets. The legend lists the methods by their best accuracy.
    """
    from matplotlib.figure import Figure

    runs = results["runs"]
    full = next(run for run in runs if run["method"] == FULL)
    methods = methods_of(runs)
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _curves(left, methods, full, lambda run: run["tokens_avg"], "tokens")
    _curves(right, methods, full, milliseconds, "ms")
    left.set_xlabel("visual tokens, average over the decoder's layers")
    right.set_xlabel("milliseconds per answer, measured")
    left.set_ylabel("accuracy, % of the full model")
    bars = "pale bars: 95% intervals, set side by side; " if any(run["ci95"] for run in runs) else ""
    figure.supxlabel(
        f"{several(full['n'], 'question')}; every mark is one measured run; {bars}"
        "grey steps: not beaten at as few tokens or as little time",
        fontsize=9, color=FAINT,
    )  # fmt: skip
    handles, labels = left.get_legend_handles_labels()
    best = {name: max(map(height_of, rows)) for name, rows in methods.items()}
    order = sorted(range(len(labels)), key=lambda i: -best[labels[i]])
    figure.legend(
        [handles[i] for i in order], [plain(labels[i]) for i in order], loc="outside right center", frameon=False,
        fontsize=9,
    )  # fmt: skip
    return figure


def _curves(axes: Axes, methods: dict[str, list[dict[str, Any]]], full: dict[str, Any], at: Any, unit: str) -> None:
    rows = [row for listed in methods.values() for row in listed]
    # the full model is far to the right; what is compared would be squeezed by it
    places = [at(row) for row in rows] or [at(full)]
    low, high = min(places), max(places)
    width = (high - low) or max(high, 1.0)
    frontier = _best([(at(row), height_of(row)) for row in rows])
    if frontier:
        axes.step(
            *zip(*frontier, strict=True), where="post", color="#e4e8ef", linewidth=6, zorder=1, label="_not beaten"
        )
    axes.axhline(height_of(full), color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    for number, (name, listed) in enumerate(methods.items()):
        color, part = COLORS[number % len(COLORS)], number / max(1, len(methods) - 1)
        for row in listed:
            if row["ci95"]:
                place = at(row) + SPREAD * width * (part - 0.5)
                axes.vlines(place, *row["ci95"], color=color, linewidth=1.2, alpha=0.45, zorder=2)
        axes.plot(
            [at(row) for row in listed], [height_of(row) for row in listed], label=name, color=color,
            marker=MARKERS[number % len(MARKERS)], markersize=11 - 6 * part, markerfacecolor="none",
            markeredgewidth=2.2 if number == 0 else 1.5, linestyle="none", zorder=4 if number == 0 else 3,
        )  # fmt: skip
    axes.set_xlim(low - 0.17 * width, high + 0.17 * width)
    text, (left, right) = f"the full model, {at(full):.{0 if at(full) >= 10 else 1}f} {unit}", axes.get_xlim()
    if left <= at(full) <= right:
        axes.plot([at(full)], [height_of(full)], marker="o", color=FAINT, markersize=6, zorder=4)
        axes.set_title(f"grey point: {text}", loc="left", fontsize=10, color=FAINT)
    else:
        side = "→ off to the right" if at(full) > right else "← off to the left"
        axes.set_title(f"dashed: {text} ({side})", loc="left", fontsize=10, color=FAINT)
    _bare(axes)


def _best(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats at as few tokens or as little time, from left to right."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept


def categories(results: dict[str, Any]) -> Figure:
    """Accuracy of every method in every category, a panel per budget, coloured by what is retained."""
    from matplotlib.figure import Figure

    runs = results["runs"]
    full = next(run for run in runs if run["method"] == FULL)
    names = list(full["categories"])
    budgets = list(dict.fromkeys(run["budget"] for run in runs if run["method"] != FULL)) or [None]
    panels = [(b, [full, *(r for r in runs if r["budget"] == b and r["method"] != FULL)]) for b in budgets]
    rows = [len(listed) for _, listed in panels]
    size = (max(7.0, 2.2 + 0.66 * (len(names) + 1)), 1.5 + 0.42 * len(panels) + 0.27 * sum(rows))
    figure = Figure(figsize=size, layout="constrained")
    grids = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=rows)[:, 0]
    for axes, (budget, listed) in zip(grids, panels, strict=True):
        _grid(axes, listed, names)
        text = "" if budget is None else f"budget {budget:g}"  # none are the model's own settings
        axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK, pad=6)
    few = f";\noutlined: fewer than {FEW} questions" if any(full["categories"][n]["n"] < FEW for n in names) else ""
    figure.supxlabel(
        f"accuracy in %; colour: share of the full model's, orange 30% or less, white 65%, blue all of it{few}",
        fontsize=9, color=FAINT,
    )  # fmt: skip
    return figure


def _grid(axes: Axes, runs: list[dict[str, Any]], names: list[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    # light enough for dark figures; orange and blue are told apart by people who confuse red and green
    colors = LinearSegmentedColormap.from_list("retained", ["#ee9a4d", "#fbf6ee", "#8fbfe4"])
    for row, run in enumerate(runs):
        cells = [run, *(run["categories"][name] for name in names)]
        for column, cell in enumerate(cells):
            share = height_of(cell) / 100
            few, color = cell["n"] < FEW, colors(min(1.0, max(0.0, (share - 0.3) / 0.7)))
            for rectangle in _cell(column, row, color, few):
                axes.add_patch(rectangle)
            axes.text(
                column, row, f"{100 * cell['accuracy']:.0f}", ha="center", va="center", fontsize=8.5, color=INK,
                fontweight="bold" if column == 0 else "normal",
            )  # fmt: skip
    axes.set_xlim(-0.5, len(names) + 0.5)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    heads = [f"{plain(name)} ({cell['n']})" for name, cell in (("all", runs[0]), *runs[0]["categories"].items())]
    axes.set_xticks(range(len(names) + 1), heads, rotation=40, ha="right", fontsize=9)
    axes.set_yticks(range(len(runs)), [plain(run["method"]) for run in runs], fontsize=9)
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _cell(column: int, row: int, color: Any, outlined: bool) -> Any:
    """A filled cell, or an outline of that colour; with a grey line around it, since white is none on a white page."""
    from matplotlib.patches import Rectangle

    x, y, width, height, out = column - 0.44, row - 0.43, 0.88, 0.86, 0.02
    if not outlined:
        return [Rectangle((x, y), width, height, facecolor=color, edgecolor=HAIR, linewidth=0.5)]
    around = Rectangle((x - out, y - out), width + 2 * out, height + 2 * out, facecolor="none", edgecolor=HAIR)
    around.set_linewidth(0.5)
    return [around, Rectangle((x, y), width, height, facecolor="none", edgecolor=color, linewidth=1.8)]


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b9c0cc")
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.grid(axis="y", color="#edf0f5", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
