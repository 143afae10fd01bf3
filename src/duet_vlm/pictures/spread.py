"""Where the visual tokens of an image that was cut into tiles stand in the photo."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.trace import ImageTrace, Trace
from ..families import family_of

CLS = -1
FITS = 0.08  # mean difference, of 1, between tiles put together and the photo


@dataclass
class Spread:
    """The tokens of one drawn picture, which stage 1 leaves at their places.

    Attributes:
        tokens: number among the prompt's visual tokens -> patch of the picture, in raster order.
        sources: number among the trace's images -> their patch -> patch of the picture; others are not in it.
        ends: numbers of the visual tokens that end rows of patches.
    """

    tokens: dict[int, int]
    sources: dict[int, dict[int, int]]
    ends: set[int] = field(default_factory=set)

    def places(self, trace: Trace) -> dict[int, int]:
        """Place in the prompt -> patch, for the tokens that enter the language model."""
        visual, entering = trace.samples[0].visual, entering_places(trace)
        return {visual[i]: patch for i, patch in self.tokens.items() if visual[i] in entering}

    def row_ends(self, trace: Trace) -> set[int]:
        """Places in the prompt of the row ends that enter the language model."""
        return {trace.samples[0].visual[i] for i in self.ends} & entering_places(trace)

    def merged(self, trace: Trace) -> ImageTrace:
        """What stage 1 did to the picture's patches."""
        dominant, anchors, clusters = list[int](), list[int](), list[list[int]]()
        for number, patches in self.sources.items():
            image = trace.images[number]
            dominant += [patches[p] for p in image.dominant if p in patches]
            for anchor, members in zip(image.anchors, image.clusters, strict=True):
                if anchor in patches:
                    anchors.append(patches[anchor])
                    clusters.append([patches[p] for p in members if p in patches])
        return ImageTrace([], dominant, anchors, clusters)


def entering_places(trace: Trace) -> set[int]:
    """Places in the prompt of the visual tokens that enter the language model."""
    sample = trace.samples[0]
    return set(next((drop.kept for drop in sample.drops if drop.layer == 0), sample.visual))


def packed(core: Any, sizes: Tensor, crops: int, side: int) -> tuple[tuple[int, int], Spread, Spread]:
    """Rows and columns of an AnyRes image without its padding; its tokens, and those of its base crop.

    Stock itself packs the numbers of the patches, so that they end where the patches do.

    Args:
        core: the core model, of an AnyRes family.
        sizes: (1, 2) the image's height and width in pixels, `packed_sizes` of the family.
        crops: how many there are, the base crop first.
        side: rows of patches of a crop.
    """
    pack, patches, config = type(core).pack_image_features, side * side, core.config
    numbers = torch.arange(1, crops * patches + 1).float().reshape(crops, patches, 1)
    how = {name: getattr(config, name, None) for name in ("vision_feature_select_strategy", "vision_aspect_ratio")}
    how = {name: value for name, value in how.items() if name in inspect.signature(pack).parameters}
    order, _ = pack(core, [numbers], sizes.cpu(), image_newline=torch.zeros(1), **how)
    rest = order[0][patches:, 0]
    rows = int((rest == 0).sum())
    columns = len(rest) // rows - 1
    whole, base = Spread({}, {}), Spread({i: i for i in range(patches)}, {0: {i: i for i in range(patches)}})
    together = family_of(config).crops_together
    for i, number in enumerate(rest.long().tolist()):
        row, column = divmod(i, columns + 1)
        if column == columns:
            whole.ends.add(patches + i)
            continue
        patch = row * columns + column
        whole.tokens[patches + i] = patch
        crop, place = (0, patches + patch) if together else divmod(number - 1, patches)
        whole.sources.setdefault(crop, {})[place] = patch
    return (rows, columns), whole, base


def arranged(image: Any, tiles: np.ndarray) -> tuple[int | None, tuple[int, int]] | None:
    """How a photo was cut: which of its tiles shows all of it, if any, and rows and columns of the others.

    Args:
        image: the PIL photo.
        tiles: (n, side, side, 3) in [0, 1], in the order that the model gets them.

    Returns:
        None where no arrangement looks like the photo.
    """
    from PIL import Image

    found = []
    for overview in (len(tiles) - 1, 0, None):
        cut = tiles if overview is None else np.delete(tiles, overview, axis=0)
        for rows in range(1, len(cut) + 1):
            if len(cut) % rows:
                continue
            whole = joined(cut, rows)
            size = whole.shape[1], whole.shape[0]
            photo = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32) / 255
            found.append((float(np.abs(photo - whole).mean()), overview, (rows, len(cut) // rows)))
    difference, overview, grid = min(found, key=lambda candidate: candidate[0])
    return (overview, grid) if difference < FITS else None


def joined(tiles: np.ndarray, rows: int) -> np.ndarray:
    """(n, h, w, 3) -> (rows * h, n / rows * w, 3)."""
    lines = [np.concatenate(list(line), axis=1) for line in np.split(tiles, rows)]
    return np.concatenate(lines, axis=0)


def of_tiles(numbers: list[int], grid: tuple[int, int], side: int) -> Spread:
    """The tokens of tiles that stand side by side.

    Args:
        numbers: of the tiles, in raster order, among all that the model gets.
        grid: rows and columns of tiles.
        side: rows of visual tokens of a tile.
    """
    spread = Spread({}, {})
    for i, number in enumerate(numbers):
        top, left = (side * n for n in divmod(i, grid[1]))
        for patch in range(side * side):
            row, column = divmod(patch, side)
            place = (top + row) * grid[1] * side + left + column
            spread.tokens[number * side * side + patch] = place
            spread.sources.setdefault(number, {})[patch] = place
    return spread


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
    """
    tokens = patches if tokens is None else tokens
    visual = trace.samples[0].visual
    span = visual[number * tokens : (number + 1) * tokens]
    entering = entering_places(trace)
    in_place = {place: i - (tokens - patches) for i, place in enumerate(span) if place in entering}
    if not trace.images:
        return in_place
    image = image_of(trace, patches, number)
    retained = [*image.dominant, *image.anchors]
    if sorted(patch for patch in in_place.values() if patch != CLS) == sorted(retained):
        return in_place
    return dict(zip(in_place, [*[CLS] * (len(in_place) - len(retained)), *retained], strict=True))


def image_of(trace: Trace, patches: int, number: int) -> ImageTrace:
    """What stage 1 did to one image (AnyRes: the base crop) or frame, of `patches` places.

    Where an image's crops, or a video's frames, were merged together, it is the part that has these places.
    """
    image, first = trace.images[0], number * patches
    if number < len(trace.images):
        image, first = trace.images[number], 0
    if len(image.scores) == patches:
        return image

    def here(places: list[int]) -> list[int]:
        return [place - first for place in places if first <= place < first + patches]

    chosen = [i for i, anchor in enumerate(image.anchors) if here([anchor])]
    return ImageTrace(
        image.scores[first : first + patches],
        here(image.dominant),
        here(image.anchors),
        [here(image.clusters[i]) for i in chosen],
    )
