"""What a picture shows: the image, or a few frames of the video, as the vision tower saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .request import Prepared
from .video.sampling import ends

ROWS = 4  # frames of a video that are drawn


@dataclass
class Shown:
    """One image, or one frame of a video, that is drawn.

    Attributes:
        image: the PIL picture, the part of it that the tower saw.
        number: its place among what was encoded, 0 the first.
        tokens: visual tokens of each image or frame before it, and of itself.
        heading: what it is.
        label: what the axes' labels end with.
    """

    image: Any
    number: int
    tokens: int
    heading: str = "The image"
    label: str = ""


def shown_image(prepared: Prepared, grid: tuple[int, int]) -> Shown:
    """The picture of a prompt."""
    processor = prepared.processor.image_processor
    pixels = prepared.inputs["pixel_values"].float().cpu()
    part = prepared.image
    if pixels.ndim > 3:  # elsewhere flat patches of the whole picture
        part = seen(part, pixels[0, 0] if pixels.ndim == 5 else pixels[0], processor.image_mean, processor.image_std)
    return Shown(part, 0, grid[0] * grid[1])


def shown_frames(prepared: Prepared, visual: int, grid: tuple[int, int]) -> list[Shown]:
    """A few evenly chosen frames of a prompt's video, as the model encodes them; of a temporal patch the first.

    Args:
        visual: visual tokens of the video.
        grid: rows and columns of a frame's merged patches.
    """
    from PIL import Image

    clip, inputs = prepared.clip, prepared.inputs
    assert clip is not None
    together = 1 if "video_grid_thw" not in inputs else prepared.processor.video_processor.temporal_patch_size
    encoded = clip.indices[::together]
    name = "pixel_values_videos" if "pixel_values_videos" in inputs else "pixel_values"
    pixels = inputs[name].float().cpu().reshape(-1, *inputs[name].shape[-3:]) if inputs[name].ndim > 3 else None
    processor = getattr(prepared.processor, "video_processor", prepared.processor.image_processor)
    shown = []
    for number in ends(len(encoded), min(ROWS, len(encoded))):
        frame = Image.fromarray(clip.frames[number * together])
        if pixels is not None:
            frame = seen(frame, pixels[number], processor.image_mean, processor.image_std)
        first = number * together
        names = " and ".join(str(i + 1) for i in range(first, min(first + together, len(clip.indices))))
        heading = f"Frame{'s' if ' ' in names else ''} {names} of {len(clip.indices)}, {clip.times[first]:.1f} s"
        shown.append(Shown(frame, number, visual // len(encoded), heading, f" of frame {first + 1}"))
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
