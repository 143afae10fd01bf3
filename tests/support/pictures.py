"""Pictures of noise, and pictures with any EXIF and how they look when turned."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

# what the tag's definition says of the stored rows and columns, in numpy's words
TURNED = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


def corners() -> Image.Image:
    """40 x 24, every corner of another colour."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:12, :20], pixels[:12, 20:], pixels[12:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of noise, the same for the same size and seed; PIL's own has no seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def block(orientation: int, *more: tuple[int, int, bytes], order: str = "<") -> bytes:
    """EXIF with an orientation and other tags of any type."""
    tags = sorted([(0x0112, 3, struct.pack(order + "HH", orientation, 0)), *more])
    entries = b"".join(struct.pack(order + "HHI", tag, kind, 1) + value for tag, kind, value in tags)
    start = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    return start + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def jpeg(file: Path, exif: bytes) -> Path:
    """A JPEG with this EXIF, as it is."""
    whole = io.BytesIO()
    corners().save(whole, "JPEG", quality=95)
    segment = b"Exif\0\0" + exif
    head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    file.write_bytes(whole.getvalue()[:2] + head + whole.getvalue()[2:])
    return file


def assert_shows(found: Image.Image, expected: np.ndarray, within: float = 6) -> None:
    assert found.mode == "RGB" and found.size == expected.shape[1::-1]
    assert np.abs(np.asarray(found).astype(int) - expected).mean() < within
