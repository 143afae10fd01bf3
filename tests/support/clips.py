"""Small clips, made on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np


def level(index: int) -> int:
    """The grey of a clip's frame, far enough from its neighbours' to survive compression."""
    return 20 + 12 * (index % 20)


def clip(file: Path, frames: int = 10, width: int = 48, height: int = 32, rate: int = 10, codec: str = "mpeg4") -> Path:
    """A video whose frame `i` is grey of `level(i)`, darker in the upper left quarter, with a square that wanders."""
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2_000_000
        container.start_encoding()  # a header, also without frames
        for i in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode())
    return file


def picture(index: int, width: int = 48, height: int = 32) -> np.ndarray:
    """(H, W, 3) uint8, what `clip` writes."""
    pixels = np.full((height, width, 3), level(index), np.uint8)
    pixels[: height // 2, : width // 2] //= 2
    left = (index * 4) % (width - 8)
    pixels[height - 10 : height - 2, left : left + 8] = (220, 60, 30)
    return pixels


def song(file: Path, frames: int = 20) -> Path:
    """A file with sound alone."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for i in range(frames):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16000, 1024 * i
            container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return file


def held(file: Path, degrees: int, target: Path) -> Path:
    """The same MP4 as a telephone writes it that was held `degrees` (a multiple of 90) to the side."""
    data = bytearray(file.read_bytes())
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    matrix = [cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30]
    start = data.index(b"tkhd") + 4 + 40  # version 0: its matrix follows 40 bytes of times and flags
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    target.write_bytes(data)
    return target
