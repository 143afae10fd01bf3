"""What a picture shows: the image, all tiles of it put together, or a few frames of the video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..console.tables import several
from ..families import family_of
from ..families.video.sampling import ends
from ..inputs.prepared import Prepared
from . import spread
from .spread import Spread

ROWS = 4  # frames of a video, or tiles without a place, that are drawn


@dataclass
class Shown:
    """One picture, or one frame of a video, that is drawn.

    Attributes:
        image: the PIL picture, the part of it that the tower saw.
        number: its place among what was encoded, 0 the first.
        tokens: visual tokens of each image or frame before it, and of itself.
        heading: what it is.
        note: what the tower did not see of it, or sees otherwise.
        label: what the axes' labels end with.
        grid: rows and columns of its patches; those of the others, if None.
        spread: where its tokens stand, if they are not the ones from `number * tokens` on.
    """

    image: Any
    number: int
    tokens: int
    heading: str = "The image"
    note: str = ""
    label: str = ""
    grid: tuple[int, int] | None = None
    spread: Spread | None = None


def shown_image(prepared: Prepared, visual: int, grid: tuple[int, int]) -> list[Shown]:
    """The picture of a prompt; of an image cut into tiles, the overview and all tiles at their places.

    Args:
        visual: visual tokens of the image.
        grid: rows and columns of an image's, crop's or tile's patches.
    """
    image, inputs = prepared.image, prepared.inputs
    processor, patches = prepared.processor.image_processor, grid[0] * grid[1]
    family = family_of(prepared.model.config)
    pixels, sizes = family.crops_in(inputs), family.packed_sizes(inputs)
    if pixels is None:  # flat patches of the whole picture
        return [Shown(image, 0, patches, note=change(image, image, grid))]
    pixels = pixels.float().cpu()
    mean, std = processor.image_mean, processor.image_std
    base = seen(image, pixels[0], mean, std)
    cut = len(pixels)
    if cut == 1:
        return [Shown(base, 0, patches, note=change(image, base, grid))]
    if sizes is not None:
        whole, tokens, overview = spread.packed(prepared.model.base_model, sizes, cut, grid[0])
        return [
            Shown(base, 0, patches, "Base crop", change(image, base, grid), " of the base crop", grid, overview),
            Shown(image, 1, patches, f"The image in {several(cut - 1, 'tile')}", "", "", whole, tokens),
        ]
    raw = pixels.numpy().transpose(0, 2, 3, 1) * np.asarray(std) + np.asarray(mean)
    side = math.isqrt(visual // cut)
    found = spread.arranged(image, raw.clip(0, 1))
    if found is None:
        return [
            Shown(seen(image, pixels[i], mean, std), i, patches, f"Tile {i + 1} of {cut}", label=f" of tile {i + 1}")
            for i in ends(cut, min(ROWS, cut))
        ]
    overview_number, (rows, columns) = found
    numbers = [i for i in range(cut) if i != overview_number]
    whole = rows * side, columns * side
    name, tokens = f"The image in {several(len(numbers), 'tile')}", spread.of_tiles(numbers, (rows, columns), side)
    shown = [Shown(image, 0, patches, name, change(image, image, whole), "", whole, tokens)]
    if overview_number is not None:
        part = seen(image, pixels[overview_number], mean, std)
        note = change(image, part, grid)
        shown.insert(0, Shown(part, overview_number, patches, "The image in one tile", note, " of the overview", grid))
    return shown


def change(image: Any, part: Any, grid: tuple[int, int]) -> str:
    """Whether what is drawn is only a part of the image, or out of shape.

    Args:
        image: the PIL picture, and
        part: what the tower saw of it.
        grid: rows and columns of patches, which are square.
    """
    if part.size != image.size:
        return " of its middle square" if min(part.size) == min(image.size) else ", as the model sees it"
    squeezed = abs(math.log(part.width * grid[0] / (part.height * grid[1]))) > 0.1
    return ", squeezed as the model sees it" * squeezed


def shown_frames(prepared: Prepared, visual: int, grid: tuple[int, int]) -> list[Shown]:
    """A few evenly chosen frames of a prompt's video, as the model encodes them; of a temporal patch the first.

    Args:
        visual: visual tokens of the video.
        grid: rows and columns of a frame's merged patches.
    """
    from PIL import Image

    clip, family = prepared.clip, family_of(prepared.model.config)
    assert clip is not None
    together = family.frames_together(prepared.processor)
    encoded, pixels = clip.indices[::together], family.crops_in(prepared.inputs)
    processor = getattr(prepared.processor, "video_processor", prepared.processor.image_processor)
    shown = []
    for number in ends(len(encoded), min(ROWS, len(encoded))):
        frame = Image.fromarray(clip.frames[number * together])
        if pixels is not None:
            frame = seen(frame, pixels[number].float().cpu(), processor.image_mean, processor.image_std)
        first = number * together
        names = " and ".join(str(i + 1) for i in range(first, min(first + together, len(clip.indices))))
        two = " and " in names
        heading = f"Frame{'s' * two} {names} of {len(clip.indices)}, {clip.times[first]:.1f} s"
        note = ", the first frame is drawn" * two
        shown.append(Shown(frame, number, visual // len(encoded), heading, note, f" of frame {first + 1}"))
    return shown


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
