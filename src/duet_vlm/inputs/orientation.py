"""How a picture was held: the EXIF tag 0x0112, whatever else is odd in EXIF."""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
EXIF = b"Exif\0\0"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # TIFF's numbers of its types


def orientation_of(image: Image.Image) -> int:
    """1 to 8, how the pixels are to be turned; 1 where nothing readable says so."""
    value = _tag(image.info.get("exif"))
    if value is None:
        try:  # where else it may stand: in a PNG's text, in XMP, in memory
            value = image.getexif().get(ORIENTATION)
        except Exception:  # whatever is odd there says nothing of the picture
            value = None
    return value if value in TURNS else 1


def _tag(block: Any) -> int | None:
    """The orientation in a block of EXIF; Pillow gives up at the first odd entry of the list."""
    if not isinstance(block, bytes):
        return None
    block = block.removeprefix(EXIF)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", block, at)
            if tag == ORIENTATION:
                value: int = struct.unpack_from(order + INTEGERS.get(kind, "H"), block, at + 8)[0]
                return value
    except struct.error:  # the list goes on behind the block's end
        pass
    return None
