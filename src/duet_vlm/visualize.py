"""One picture of what a compression kept: image or frames, stage 1's clusters, what each drop kept, salient words."""

from __future__ import annotations

import colorsys
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DuetError
from .families import family_of, visual_token_ids
from .request import Prepared, grid_of
from .shown import Shown, shown_frames, shown_image
from .trace import ImageTrace, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .drawing import Panel

CLS = -1
PANEL = 640  # pixels of a panel's longer side, about
GONE, DROPPED, MEMBER = 0.16, 0.42, 0.5  # brightness of what went earlier, of what goes here; tint of a member


def patches_of(trace: Trace, patches: int, number: int = 0, tokens: int | None = None) -> dict[int, int]:
    """Place in the prompt -> patch of one image (AnyRes: the base crop) or frame, for its tokens in the language model.

    A patch is a place in raster order, `CLS` the CLS token. Where stage 1 moved the retained tokens to the first
    places of the image's span (LLaVA-1.5: CLS, dominant in image order, contextual in anchor order), they are told
    apart from those that stayed in place (LLaVA-NeXT) by what passed the entrance. A contextual token is its anchor.

    Args:
        trace: of a single prompt.
        patches: merged patches of one image, crop or frame.
        number: which of them, 0 the first.
        tokens: visual tokens of each; one more than `patches` where CLS is the first.

    Raises:
        DuetError: tokens that are not the patches of an image.
    """
    tokens = patches if tokens is None else tokens
    visual = trace.samples[0].visual
    span = visual[number * tokens : (number + 1) * tokens]
    entrance = set(next((drop.kept for drop in trace.samples[0].drops if drop.layer == 0), visual))
    in_place = {place: i - (tokens - patches) for i, place in enumerate(span) if place in entrance}
    if not trace.images:
        return in_place
    image = part_of(trace.images[number], patches)
    retained = [*image.dominant, *image.anchors]
    if sorted(patch for patch in in_place.values() if patch != CLS) == sorted(retained):
        return in_place
    if len(in_place) < len(retained):
        raise DuetError("the visual tokens of this prompt are not the patches of its image, so they cannot be drawn.")
    return dict(zip(in_place, [*[CLS] * (len(in_place) - len(retained)), *retained], strict=True))


def part_of(image: ImageTrace, patches: int) -> ImageTrace:
    """What is in the first `patches` places: the base crop, where an image's crops were merged together."""
    if len(image.scores) == patches:
        return image
    chosen = [i for i, anchor in enumerate(image.anchors) if anchor < patches]
    return ImageTrace(
        image.scores[:patches],
        [place for place in image.dominant if place < patches],
        [image.anchors[i] for i in chosen],
        [[place for place in image.clusters[i] if place < patches] for i in chosen],
    )


def words_of(ids: list[int], queries: list[int], start: int, tokenizer: Any) -> list[tuple[str, str]]:
    """The prompt's words from place `start` on, each "salient", "last" (the last token) or "plain"."""
    from .words import token_spans

    text, spans = token_spans(ids[start:], tokenizer)
    kinds = [""] * len(text)
    for place in queries:
        if place >= start:
            first, end = spans[place - start]
            kinds[first:end] = ["last" if place == len(ids) - 1 else "salient"] * (end - first)
    words, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        inside = set(kinds[at : at + len(word)])
        words.append((word, "salient" if "salient" in inside else "last" if "last" in inside else "plain"))
        at += len(word)
    return words


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
    ours = set(visual_token_ids(config).values())
    visual = [i for i, token in enumerate(ids) if token in ours]
    queries = [] if trace is None else trace.samples[0].queries
    marks = set(prepared.processor.tokenizer.all_special_ids)  # ends of images
    start = next((i for i in range(visual[-1] + 1, len(ids)) if ids[i] not in marks), len(ids))
    words = words_of(ids, queries, start, prepared.processor)
    found = grid_of(prepared.inputs)
    if found is not None:
        merge = config.vision_config.spatial_merge_size
        grid = found[1] // merge, found[2] // merge
    elif prepared.clip is not None:
        grid = (math.isqrt(len(visual) // len(prepared.clip.indices)),) * 2
    elif family_of(config).dynamic:  # the base crop
        grid = (config.vision_config.image_size // config.vision_config.patch_size,) * 2
    else:
        grid = (math.isqrt(family_of(config).visual_tokens(config)),) * 2
    shown = [shown_image(prepared, grid)] if prepared.clip is None else shown_frames(prepared, len(visual), grid)
    return draw(shown, trace, grid, words, title, counts)


def draw(
    shown: list[Shown],
    trace: Trace | None,
    grid: tuple[int, int],
    words: list[tuple[str, str]],
    title: str,
    counts: list[int],
) -> Figure:
    """The figure of `picture`, from images whose patches, `grid` rows and columns of them, the trace speaks of."""
    from matplotlib.figure import Figure

    from . import drawing

    rows = [panels(one, trace, grid, len(counts)) for one in shown]
    if len(rows) == 1:
        rows = [rows[0][i : i + drawing.COLUMNS] for i in range(0, len(rows[0]), drawing.COLUMNS)]
    whole = shown[0].tokens if trace is None else len(trace.samples[0].visual)
    return drawing.compose(Figure(figsize=(1, 1)), rows, grid, words, title, counts, max(whole, *counts))


def panels(one: Shown, trace: Trace | None, grid: tuple[int, int], layers: int) -> list[Panel]:
    """The image, and what became of it."""
    from .drawing import Marks, Panel

    rows, columns = grid
    cell = max(4, PANEL // max(grid))
    base = np.asarray(one.image.resize((cell * columns, cell * rows)), dtype=np.float32) / 255
    found = [Panel(f"image{one.label}", one.heading, f"{rows * columns} patches", base)]
    if trace is None:
        return found
    places = patches_of(trace, rows * columns, one.number, one.tokens)
    merged = part_of(trace.images[one.number], rows * columns) if trace.images else None
    colors = cluster_colors(merged)
    if merged is not None:
        pixels = shade(base, grid, set(merged.dominant) | set(merged.anchors), set(), merged, colors)
        marks = Marks(set(merged.dominant), merged.anchors, merged.clusters, colors)
        text = stage1_text(merged, places)
        found.append(Panel(f"stage 1{one.label}", "Stage 1: into the language model", text, pixels, marks))
    before = set(places.values())
    drops = [drop for drop in trace.samples[0].drops if drop.layer > 0]
    for i, drop in enumerate(drops):
        kept = {places[place] for place in drop.kept if place in places}
        end = drops[i + 1].layer if i + 1 < len(drops) else layers
        until = f"layers {drop.layer} to {end - 1}" if end - 1 > drop.layer else f"layer {drop.layer}"
        anchors = [] if merged is None else [anchor for anchor in merged.anchors if anchor in kept]
        kept_colors = {anchor: colors[anchor] for anchor in anchors}
        marks = Marks(kept - {CLS} - set(anchors), anchors, [[] for _ in anchors], kept_colors)
        pixels = shade(base, grid, kept, before - kept, None, colors)
        label, text = f"drop {drop.layer}{one.label}", drop_text(kept, before)
        found.append(Panel(label, f"Stage 2: {until}", text, pixels, marks))
        before = kept
    return found


def cluster_colors(merged: ImageTrace | None) -> dict[int, tuple[float, float, float]]:
    """A colour for each anchor; neighbours in anchor order are far apart on the colour circle."""
    anchors = [] if merged is None else merged.anchors
    golden = 0.618034  # of a turn
    return {a: colorsys.hsv_to_rgb((0.09 + golden * i) % 1, 0.85 - 0.25 * (i % 2), 1.0) for i, a in enumerate(anchors)}


def shade(
    base: np.ndarray,
    grid: tuple[int, int],
    kept: set[int],
    dropped: set[int],
    merged: ImageTrace | None,
    colors: dict[int, tuple[float, float, float]],
) -> np.ndarray:
    """(H, W, 3) `base` with only the kept patches bright, those dropped here dimmed, the others dark.

    With `merged`, the members of a cluster are tinted with its colour.
    """
    cell = base.shape[0] // grid[0]
    grey = base.mean(-1, keepdims=True).repeat(3, axis=-1)
    out = GONE * grey
    for patch in range(grid[0] * grid[1]):
        row, column = divmod(patch, grid[1])
        where = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        if patch in kept:
            out[where] = base[where]
        elif patch in dropped:
            out[where] = DROPPED * grey[where]
    if merged is not None:
        for anchor, members in zip(merged.anchors, merged.clusters, strict=True):
            for patch in members:
                row, column = divmod(patch, grid[1])
                where = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
                out[where] = (1 - MEMBER) * base[where] + MEMBER * np.asarray(colors[anchor])
    return out


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
