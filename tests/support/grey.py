"""One grey scene in every depth, and PNG files written by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCENE = Image.open(Path(__file__).parents[2] / "examples" / "scene.png").convert("L").resize((60, 40))

GREY = np.asarray(SCENE)

DEPTHS: dict[str, Any] = {
    "8 bit": GREY,
    "16 bit": GREY.astype(np.uint16) * 257,
    "16 bit, other byte order": (GREY.astype(np.uint16) * 257).astype(">u2"),
    "14 of 16": GREY.astype(np.uint16) * 64,
    "12 of 16": GREY.astype(np.uint16) * 16,
    "10 of 16": GREY.astype(np.uint16) * 4,
    "8 of 16": GREY.astype(np.uint16),
    "32 bit": GREY.astype(np.int32) * 257,
    "float to 1": GREY.astype(np.float32) / 255,
    "float to 255": GREY.astype(np.float32),
    "float to 65535": GREY.astype(np.float32) * 257,
}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(file: Path, width: int, rows: list[bytes], depth: int, color: int, clear: bytes = b"") -> Path:
    head = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    transparency = chunk(b"tRNS", clear) if clear else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + transparency + body + chunk(b"IEND", b""))
    return file
