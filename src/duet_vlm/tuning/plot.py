"""Share kept over cost, a mark for every setting, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..evaluation.plots import DPI
from ..pictures.drawing import plain
from ..pictures.legend import FAINT, INK
from .summary import ASIDE, CHOSEN, FAILS, KEEPS, LITTLE

# told apart by shape as well as by colour
MARKS = {CHOSEN: ("*", "#009e73", 16), KEEPS: ("o", "#0072b2", 7), FAILS: ("X", "#d55e00", 8),
         LITTLE: ("x", "#d55e00", 6), ASIDE: ("s", "#8a93a3", 5)}  # fmt: skip


def write_plot(results: dict[str, Any], file: Path) -> None:
    """Every setting as it was seen on the most questions: what it kept, with its bounds, over what it costs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes, used = figure.subplots(), set[str]()
    asked = 100 * results["goal"]["share"]
    for row in results["runs"]:
        seen = row["test"] or row["seen"]
        if seen is None or not seen["questions"]:
            continue
        marker, color, size = MARKS[row["verdict"]]
        place, label = 100 * seen["cost"], None if row["verdict"] in used else row["verdict"]
        used.add(row["verdict"])
        axes.vlines(place, 100 * seen["lower"], 100 * seen["upper"], color=color, linewidth=1.2, alpha=0.45)
        axes.plot(
            place, 100 * seen["share"], marker=marker, color=color, markersize=size, linestyle="none", label=label
        )
        if row["verdict"] in (CHOSEN, FAILS, KEEPS):
            axes.annotate(
                plain(row["label"]), (place, 100 * seen["share"]), xytext=(4, -11), textcoords="offset points",
                fontsize=8, color=INK,
            )  # fmt: skip
    axes.axhline(asked, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=f"asked: {asked:g}%")
    axes.set_xlabel("operations of the decoder's prefill, % of the full model's")
    what = "answers that agree with" if results["goal"]["agree"] else "accuracy, % of that of"
    axes.set_ylabel(f"{what} the full model" + (", %" if results["goal"]["agree"] else ""))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(file, dpi=DPI)
