"""One picture of what a compression kept: the image, stage 1's clusters, what each drop kept, and the salient words."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

from .trace import ImageTrace, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLS = -1
PANEL = 640  # pixels of a panel's image, about
GONE, DROPPED, MEMBER = 0.16, 0.42, 0.5  # brightness of what went earlier, of what goes here; tint of a member


def patches_of(trace: Trace, patches: int) -> dict[int, int]:
    """Place in the prompt -> patch of the first image (or AnyRes base crop), for its tokens in the language model.

    A patch is a place in raster order, `CLS` the CLS token. Where stage 1 moved the retained tokens to the first
    places of the image's span (LLaVA-1.5: CLS, dominant in image order, contextual in anchor order), they are told
    apart from those that stayed in place (LLaVA-NeXT) by what passed the entrance. A contextual token is its anchor.

    Args:
        trace: of a single prompt.
        patches: visual tokens of one image or crop.
    """
    visual = trace.samples[0].visual
    entrance = next((drop.kept for drop in trace.samples[0].drops if drop.layer == 0), visual)
    present = [place for place in entrance if place < visual[0] + patches]
    in_place = {place: place - visual[0] for place in present}
    if not trace.images:
        return in_place
    image = trace.images[0]
    if sorted(in_place.values()) == sorted(image.dominant + image.anchors):
        return in_place
    return dict(zip(present, [CLS, *image.dominant, *image.anchors], strict=True))


def seen(image: Any, pixels: Any, mean: Any, std: Any) -> Any:
    """The part of a picture that the vision tower saw, as sharp as the file allows.

    Args:
        image: the PIL picture.
        pixels: (3, side, side) float, what the tower was given.
        mean, std: three numbers each, as the image processor normalised with.
    """
    from PIL import Image

    raw = np.asarray(pixels, dtype=np.float32).transpose(1, 2, 0) * np.asarray(std) + np.asarray(mean)
    side, short = raw.shape[0], min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    small = Image.fromarray((raw.clip(0, 1) * 255).round().astype(np.uint8))
    # processors squeeze the whole picture or cut its middle square; where neither fits, what the tower saw is shown
    for part in (image, image.crop((left, top, left + short, top + short))):
        resized = np.asarray(part.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        if np.abs(resized - raw).mean() < 0.03:
            return part
    return small


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


def picture(
    image: Any, trace: Trace | None, config: Any, inputs: Any, processor: Any, *, title: str, counts: list[int]
) -> Figure:
    """A figure of one prompt with one image.

    Args:
        image: the PIL picture.
        trace: of the prompt's prefill; None where nothing was compressed.
        config: the model's config.
        inputs: what the processor made of the prompt.
        processor: with its image processor and its tokenizer.
        title: one line above the picture.
        counts: visual tokens in each decoder layer.

    Returns:
        A figure with an axes labelled "image", one "stage 1" if it was on, one "drop N" per drop, and "tokens".
    """
    ids = inputs["input_ids"][0].tolist()
    pixels = inputs["pixel_values"].float().cpu()
    pixels = pixels[0, 0] if pixels.ndim == 5 else pixels[0]
    grid = config.vision_config.image_size // config.vision_config.patch_size
    part = seen(image, pixels, processor.image_processor.image_mean, processor.image_processor.image_std)
    last_image = max(i for i, token in enumerate(ids) if token == config.image_token_id)
    queries = [] if trace is None else trace.samples[0].queries
    words = words_of(ids, queries, last_image + 1, processor)
    return draw(part, trace, grid, words, title, counts)


def draw(
    image: Any, trace: Trace | None, grid: int, words: list[tuple[str, str]], title: str, counts: list[int]
) -> Figure:
    """The figure of `picture`, from a PIL image whose `grid` x `grid` patches the trace speaks of."""
    from matplotlib.figure import Figure

    from . import drawing

    cell = max(4, PANEL // grid)
    base = np.asarray(image.resize((cell * grid, cell * grid)), dtype=np.float32) / 255
    panels: list[tuple[str, str, str]] = [("image", "The image", f"{grid * grid} patches")]
    pictures = [base]
    outlines: list[Any] = [None]
    if trace is not None:
        places = patches_of(trace, grid * grid)
        merged = trace.images[0] if trace.images else None
        colors = cluster_colors(merged)
        if merged is not None:
            panels.append(("stage 1", "Stage 1: into the language model", stage1_text(merged, places)))
            pictures.append(shade(base, grid, set(merged.dominant) | set(merged.anchors), set(), merged, colors))
            outlines.append(drawing.Marks(set(merged.dominant), merged.anchors, merged.clusters, colors))
        before = set(places.values())
        drops = [drop for drop in trace.samples[0].drops if drop.layer > 0]
        for i, drop in enumerate(drops):
            kept = {places[place] for place in drop.kept if place in places}
            end = drops[i + 1].layer if i + 1 < len(drops) else len(counts)
            until = f"layers {drop.layer} to {end - 1}" if end - 1 > drop.layer else f"layer {drop.layer}"
            panels.append((f"drop {drop.layer}", f"Stage 2: {until}", drop_text(kept, before)))
            pictures.append(shade(base, grid, kept, before - kept, None, colors))
            anchors = [] if merged is None else [anchor for anchor in merged.anchors if anchor in kept]
            kept_colors = {anchor: colors[anchor] for anchor in anchors}
            outlines.append(drawing.Marks(kept - {CLS} - set(anchors), anchors, [[] for _ in anchors], kept_colors))
            before = kept
    figure = Figure(figsize=(1, 1))
    return drawing.compose(figure, panels, pictures, outlines, grid, cell, words, title, counts)


def cluster_colors(merged: ImageTrace | None) -> dict[int, tuple[float, float, float]]:
    """A colour for each anchor; neighbours in anchor order are far apart on the colour circle."""
    anchors = [] if merged is None else merged.anchors
    golden = 0.618034  # of a turn
    return {a: colorsys.hsv_to_rgb((0.09 + golden * i) % 1, 0.85 - 0.25 * (i % 2), 1.0) for i, a in enumerate(anchors)}


def shade(
    base: np.ndarray,
    grid: int,
    kept: set[int],
    dropped: set[int],
    merged: ImageTrace | None,
    colors: dict[int, tuple[float, float, float]],
) -> np.ndarray:
    """(side, side, 3) `base` with only the kept patches bright, those dropped here dimmed, the others dark.

    With `merged`, the members of a cluster are tinted with its colour.
    """
    cell = base.shape[0] // grid
    grey = base.mean(-1, keepdims=True).repeat(3, axis=-1)
    out = GONE * grey
    for patch in range(grid * grid):
        row, column = divmod(patch, grid)
        where = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        if patch in kept:
            out[where] = base[where]
        elif patch in dropped:
            out[where] = DROPPED * grey[where]
    if merged is not None:
        for anchor, members in zip(merged.anchors, merged.clusters, strict=True):
            for patch in members:
                row, column = divmod(patch, grid)
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
