"""One picture of what a compression kept: image or frames, stage 1's clusters, what each drop kept, salient words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.trace import ImageTrace, Trace
from ..families import family_of, is_visual
from ..inputs.prepared import Prepared
from .frames import Shown, shown_frames, shown_image
from .picture_words import as_written, words_of
from .shading import cluster_colors, shade
from .spread import CLS, image_of, patches_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .drawing import Panel

PANEL = 640  # pixels of a panel's longer side, about


def picture(prepared: Prepared, trace: Trace | None, *, title: str, counts: list[int]) -> Figure:
    """A figure of one prompt with one image or video.

    Args:
        prepared: what was asked.
        trace: of the prompt's prefill; None where nothing was compressed.
        title: one line above the picture.
        counts: visual tokens in each decoder layer.

    Returns:
        A figure with an axes labelled "image", one "stage 1" if it was on, one "drop N" per drop, and "tokens"; for a
        video a row of these for every frame that is shown, their labels ending in " of frame N".
    """
    config, ids = prepared.model.config, prepared.inputs["input_ids"][0].tolist()
    visual = is_visual(config, prepared.inputs["input_ids"][0]).nonzero()[:, 0].tolist()
    queries = [] if trace is None else trace.samples[0].queries
    marks = set(prepared.processor.tokenizer.all_special_ids)  # ends of images
    start = next((i for i in range(visual[-1] + 1, len(ids)) if ids[i] not in marks), len(ids))
    words = words_of(ids, queries, start, prepared.processor)
    words = as_written(words, prepared.request.ask, prepared.processor.tokenizer.unk_token)
    family, clip = family_of(config), prepared.clip
    grid = family.token_grid(config, prepared.inputs, None if clip is None else len(visual) // len(clip.indices))
    if clip is None:
        shown = shown_image(prepared, len(visual), grid)
        crops = family.crops_in(prepared.inputs)
        there, parts = 1 if crops is None else len(crops), "tiles"
    else:
        shown, together = shown_frames(prepared, len(visual), grid), family.frames_together(prepared.processor)
        there, parts = -(-len(clip.indices) // together), "frames" if together == 1 else "encoded pairs of frames"
    placed = any(one.spread is not None for one in shown)
    note = "" if placed or len(shown) == there else f"{len(shown)} of {there} {parts} are drawn."
    small = prepared.config.downsample
    return draw(shown, trace, grid, words, title, counts, note, small)


def draw(
    shown: list[Shown],
    trace: Trace | None,
    grid: tuple[int, int],
    words: list[tuple[str, str]],
    title: str,
    counts: list[int],
    note: str = "",
    small: tuple[int, int] | None = None,
) -> Figure:
    """The figure of `picture`, from images whose patches, `grid` rows and columns of them, the trace speaks of.

    Args:
        note: a line on what is not drawn.
        small: rows and columns of patches to which the image was shrunk before the encoder.
    """
    from matplotlib.figure import Figure

    from . import drawing

    rows = [panels(one, trace, one.grid or grid, len(counts), small) for one in shown]
    if len(rows) == 1:
        rows = [rows[0][i : i + drawing.COLUMNS] for i in range(0, len(rows[0]), drawing.COLUMNS)]
    whole = shown[0].tokens if trace is None else len(trace.samples[0].visual)
    return drawing.compose(Figure(figsize=(1, 1)), rows, words, title, counts, max(whole, *counts), note)


def panels(
    one: Shown, trace: Trace | None, grid: tuple[int, int], layers: int, small: tuple[int, int] | None = None
) -> list[Panel]:
    """The image, and what became of it."""
    from .drawing import Marks, Panel

    rows, columns = grid
    cell = max(4, PANEL // max(grid))
    base = np.asarray(one.image.resize((cell * columns, cell * rows)), dtype=np.float32) / 255
    ends: set[int] = set()
    text = f"{rows * columns} patches{one.note}"
    if one.spread is not None and one.spread.ends:
        text += f"; {len(one.spread.ends)} row ends are not drawn"
    found = [Panel(f"image{one.label}", one.heading, text, base, grid)]
    if trace is None:
        return found
    merged = None
    if one.spread is not None:
        places, ends = one.spread.places(trace), one.spread.row_ends(trace)
        merged = one.spread.merged(trace) if trace.images else None
    else:
        places = patches_of(trace, rows * columns, one.number, one.tokens)
        merged = image_of(trace, rows * columns, one.number) if trace.images else None
    colors = cluster_colors(merged)
    if merged is not None:
        pixels = shade(base, grid, set(merged.dominant) | set(merged.anchors), set(), merged, colors)
        marks = Marks(set(merged.dominant), merged.anchors, merged.clusters, colors)
        text = stage1_text(merged, places)
        found.append(Panel(f"stage 1{one.label}", "Stage 1: into the language model", text, pixels, grid, marks))
    elif small is not None:
        found.append(shrunk(one, base, small))
        if one.spread is None:  # each token is a patch of the smaller image
            grid, base = small, found[-1].pixels
            places = {place: i for i, place in enumerate(sorted(places))}
    numbers = {} if merged is None else {anchor: i for i, anchor in enumerate(merged.anchors, start=1)}
    before = set(places.values())
    drops = [drop for drop in trace.samples[0].drops if drop.layer > 0]
    for i, drop in enumerate(drops):
        kept = {places[place] for place in drop.kept if place in places}
        end = drops[i + 1].layer if i + 1 < len(drops) else layers
        until = f"layers {drop.layer} to {end - 1}" if end - 1 > drop.layer else f"layer {drop.layer}"
        anchors = [] if merged is None else [anchor for anchor in merged.anchors if anchor in kept]
        kept_colors = {anchor: colors[anchor] for anchor in anchors}
        named = [numbers[anchor] for anchor in anchors]
        marks = Marks(kept - {CLS} - set(anchors), anchors, [[] for _ in anchors], kept_colors, named)
        pixels = shade(base, grid, kept, before - kept, None, colors)
        label, text = f"drop {drop.layer}{one.label}", drop_text(kept, before)
        if ends:
            left = ends & set(drop.kept)
            text, ends = f"{text}; {len(left)} of {len(ends)} row ends", left
        found.append(Panel(label, f"Stage 2: {until}", text, pixels, grid, marks))
        before = kept
    return found


def shrunk(one: Shown, base: np.ndarray, small: tuple[int, int]) -> Panel:
    """The image as few patches as the encoder was given, none of them sharper than it saw it."""
    from PIL import Image

    from .drawing import Panel

    cell = max(4, PANEL // max(small))
    pixels = 8  # of a small patch's side, about as many as a tower's patches have
    coarse = one.image.convert("RGB").resize((pixels * small[1], pixels * small[0]), Image.Resampling.BICUBIC)
    seen = np.asarray(coarse.resize((cell * small[1], cell * small[0]), Image.Resampling.NEAREST), np.float32) / 255
    text = f"{small[0]} rows and {small[1]} columns of patches"
    return Panel(f"stage 1{one.label}", "Shrunk before the encoder", text, seen, small)


def stage1_text(merged: ImageTrace, places: dict[int, int]) -> str:
    """What stage 1 kept, in words."""
    cls = " + CLS" if CLS in places.values() else ""
    pooled = sum(map(len, merged.clusters))
    return f"{len(merged.dominant)} dominant{cls}, {len(merged.anchors)} contextual from {pooled + len(merged.anchors)}"


def drop_text(kept: set[int], before: set[int]) -> str:
    """What a drop kept, in words."""
    if not kept:
        return f"none of {len(before)} kept"
    return f"{len(kept)} of {len(before)} kept" + (", CLS among them" if CLS in kept else "")
