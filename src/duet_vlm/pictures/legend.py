"""The legend of a picture of what was kept, and the colours that its text and marks share."""

from __future__ import annotations

from matplotlib.patches import Patch

from .shading import DEEP, DROPPED, GONE, Color

INK, FAINT = "#1d2433", "#6b7385"
SALIENT, LAST = "#ffd257", "#dfe4ee"


def swatch(colour: Color, label: str) -> Patch:
    """A striped patch, as `shading.tinted` stripes what is in this colour."""
    red, green, blue = colour
    low, high = ((red + d, green + d, blue + d) for d in (-DEEP, DEEP))
    return Patch(facecolor=low, edgecolor=high, hatch="//////", linewidth=0, label=label)


def meanings(drawn: list[str], kinds: set[str]) -> list[Patch]:
    """What the colours mean, for what is in the picture: labels of panels with marks, and kinds of words."""
    entries = []
    if "salient" in kinds:
        entries.append(Patch(facecolor=SALIENT, label="asks: salient words"))
    if "last" in kinds:
        entries.append(Patch(facecolor=LAST, label="asks: the last token"))
    if drawn:
        entries.append(Patch(facecolor="white", edgecolor="black", linewidth=1.2, label="outlined: kept"))
    if any(label.startswith("drop") for label in drawn):
        entries.append(swatch(DROPPED, "red: dropped here"))
    if drawn:
        entries.append(swatch(GONE, "grey: gone before"))
    if any(label.startswith("stage 1") for label in drawn):
        entries.append(Patch(facecolor="none", edgecolor="#ff7a1a", linewidth=2, label="framed: anchors"))
        entries.append(Patch(facecolor="#ffb98a", label="tinted: merged, by number"))
    return entries
