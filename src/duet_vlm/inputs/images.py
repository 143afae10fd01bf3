"""Pictures as a careful viewer shows them: upright, in 8 bits of red, green and blue, on white.

Whatever Pillow opens, and PIL images in memory, go through `read_image`. Its rules:

- Turned as the EXIF tag 0x0112 says, wherever it stands (JPEG, PNG, WebP, TIFF) and however odd the rest of EXIF is.
- Transparent parts show white.
- More than 8 bits are scaled to 8. Whole numbers count as 8, 10, 12, 14 or 16 bits, the fewest that hold the largest
  of them; fractions from 0 to 1 go from black to white; all others from the lowest (black) to the highest (white).
- Of several frames or pages the first is taken, and one line is logged.
- Colour profiles are not applied.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from logging import WARNING, getLogger
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DuetError
from .orientation import EXIF, TURNS, orientation_of
from .paths import check_file

PHOTOMETRIC = 0x0106  # TIFF's tag
DEPTHS = (8, 10, 12, 14, 16)
DEEP = ("I", "F")  # and I;16 of every byte order
SENT = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # taken from others; some of Pillow's readers start programs
LAYERED = ("MPO", "PSD")  # their further "frames" are previews, depth maps and layers
NOTE = WARNING + 1  # the commands silence other libraries' warnings, and not this
SEVERAL = "%s holds several frames or pages, and only the first is read (said once, of the first such picture)."

logger = getLogger(__name__)
_told: list[str] = []


class TooManyPixels(DuetError):
    """A picture that has more of them than are allowed."""


@dataclass(frozen=True)
class Decoded:
    """What a decoder gave.

    Attributes:
        pixels: RGB, RGBA, or of a deep mode.
        turn: 1 to 8, how they are to be turned, as EXIF counts.
        size: (width, height) as stored; `pixels` may be fewer.
        white_is_zero: deep greys count from white to black.
    """

    pixels: Image.Image
    turn: int
    size: tuple[int, int]
    white_is_zero: bool


def read_image(source: Any) -> Image.Image:
    """A picture, upright and RGB.

    Args:
        source: the path of a picture file, or a PIL image, which stays as it is.

    Raises:
        DuetError: no file, no picture, a damaged one, one without a pixel, or too large a one; or another type.
    """
    if isinstance(source, Image.Image):
        decoded = _load(source, "the picture handed over")
    elif isinstance(source, str | Path):
        decoded = _open(Path(source))
    else:
        raise DuetError(f"a picture of type {type(source).__name__} cannot be read: give a path or a PIL image.")
    picture = _colored(decoded)
    if decoded.turn in TURNS:
        picture = picture.transpose(TURNS[decoded.turn])
    picture.info.clear()  # it is done, so nobody turns it or makes it transparent again
    return picture


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of what `read_image` gives; a JPEG is read to its end too, but only an eighth of it decoded.

    Raises:
        DuetError: where `read_image` does.
    """
    decoded = _open(path, small=True)
    width, height = decoded.size
    return (width, height) if decoded.turn in (5, 6, 7, 8) else (height, width)


def open_bytes(data: bytes, pixels: int) -> Image.Image:
    """A picture that came over a network, its header read and its pixels not decoded yet: that is `read_image`'s part.

    Args:
        data: the file.
        pixels: the most it may have, width times height.

    Raises:
        DuetError: no picture of a format in `SENT`.
        TooManyPixels: one of too many pixels.
    """
    try:
        picture = _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(f"the picture has more pixels than are ever read: {pixels} are allowed.") from error
    except Exception as error:  # as in _open
        raise DuetError(f"these bytes are no picture: give one of {', '.join(SENT)}.") from error
    width, height = picture.size
    if width * height > pixels:
        raise TooManyPixels(f"the picture has {width}x{height} pixels: {pixels} are allowed, give a smaller one.")
    return picture


def _open(path: Path, small: bool = False) -> Decoded:
    check_file(path, "image", "the path of a picture file")
    name = f"image {str(path)!r}"
    try:
        file = _opened(path)
    except UnidentifiedImageError as error:
        raise DuetError(f"{name} is no picture: give a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from error
    except Exception as error:  # decoders raise many kinds, and nothing of ours runs in here
        raise _unreadable(name, error) from error
    with file:
        return _load(file, name, small)


def _opened(source: Path | bytes) -> Image.Image:
    formats = SENT if isinstance(source, bytes) else None
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError:
        data = source if isinstance(source, bytes) else source.read_bytes()
        at = data.find(EXIF)
        if not data.startswith(b"\xff\xd8") or at < 0:
            raise
        # Pillow stumbles over a resolution that is no number; without its name it does not look into the segment
        file = Image.open(io.BytesIO(data.replace(EXIF, EXIF.lower(), 1)), formats=formats)
        file.info["exif"] = data[at : at + 65536]
        return file


def _load(image: Image.Image, name: str, small: bool = False) -> Decoded:
    try:
        size = image.size
        if small:
            image.draft("RGB", (1, 1))
        tiles = getattr(image, "tile", None)
        stored = tiles[0].args if tiles else None
        white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0
        image.load()
        if min(image.size) < 1:
            raise ValueError("it has no pixel")
        pixels = image.copy()
    except Exception as error:  # as above
        raise _unreadable(name, error) from error
    if "transparency" in pixels.info:
        pixels.info["transparency"] = _in_eight_bits(pixels.info["transparency"], stored)
    try:
        pixels = _plain(pixels)
    except Exception as error:  # a palette, say, that does not fit
        raise _unreadable(name, error) from error
    _tell_of_more(image, name)
    # Pillow turns a TIFF file while it loads it
    turn = 1 if image.format == "TIFF" else orientation_of(image)
    return Decoded(pixels, turn, size, white_is_zero)


def _plain(pixels: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent; deep modes stay. Nothing but Pillow's own conversions."""
    if _deep(pixels):
        return pixels
    if not pixels.has_transparency_data:
        return pixels.convert("RGB")
    if pixels.mode == "La":  # premultiplied grey
        pixels = pixels.convert("LA")
    return pixels.convert("RGBA")


def _deep(pixels: Image.Image) -> bool:
    return pixels.mode in DEEP or pixels.mode.startswith("I;16")


def _in_eight_bits(clear: Any, stored: Any) -> Any:
    """A PNG's transparent colour, brought to 8 bits as Pillow brings the pixels; `stored` is how they were stored."""
    if stored in ("L;2", "L;4") and isinstance(clear, int):
        return clear * (85 if stored == "L;2" else 17)
    if stored == "RGB;16B" and isinstance(clear, tuple):
        return tuple(value >> 8 for value in clear)
    return clear


def _unreadable(name: str, error: Exception) -> DuetError:
    told = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)):
        return DuetError(f"{name} is too large ({told}): give a smaller one.")
    return DuetError(f"{name} is truncated or damaged ({told}): give a whole picture file.")


def _tell_of_more(image: Image.Image, name: str) -> None:
    if _told or image.format in LAYERED:
        return
    try:
        several = getattr(image, "is_animated", False)
    except Exception:  # a later frame is damaged, and nobody needs it
        return
    if several:
        _told.append(name)
        logger.log(NOTE, SEVERAL, name)


def _colored(decoded: Decoded) -> Image.Image:
    """RGB on white, in 8 bits."""
    pixels = decoded.pixels
    if pixels.mode == "RGB":
        return pixels
    if pixels.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    values, clear = np.asarray(pixels), pixels.info.get("transparency")
    grey = _eight_bits(values)
    if decoded.white_is_zero:
        grey = 255 - grey
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """(H, W) numbers of any kind -> (H, W) uint8, by the rules above; what is no number is black."""
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if not finite.size:
        return np.where(wide == np.inf, np.uint8(255), np.uint8(0))
    low, high = finite.min(), finite.max()
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        low, high = 0.0, 1.0
    elif low >= 0 and high < 1 << DEPTHS[-1] and not (finite % 1).any():
        low, high = 0.0, next(float((1 << bits) - 1) for bits in DEPTHS if high < 1 << bits)
    span = high - low or 1.0
    levels = (np.nan_to_num(wide, nan=low, posinf=high, neginf=low) - low) / span * 255
    bytes_: np.ndarray = levels.round().astype(np.uint8)
    return bytes_
