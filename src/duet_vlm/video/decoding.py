"""Frames of a video file, decoded by PyAV; only the frames asked for are ever held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DuetError

ENDINGS = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
UNKNOWN_RATE = 24.0  # frames per second where a file tells none, as in the stock processors

Sample = Callable[[int, float], list[int]]
"""Which frames to read: (frames of the video, frames per second) -> different indices in ascending order."""


@dataclass(frozen=True)
class Clip:
    """The frames read from a video.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, turned upright.
        indices: T places among the video's frames.
        times: T seconds from the video's start, as the file tells them.
        total: frames of the whole video.
        rate: frames per second of the whole video, on average.
    """

    frames: np.ndarray
    indices: list[int]
    times: list[float]
    total: int
    rate: float

    @property
    def duration(self) -> float:
        """Seconds of the whole video."""
        return self.total / self.rate


def is_video(path: Path) -> bool:
    """Whether a file's ending says that it is a video."""
    return path.suffix.lower() in ENDINGS


def read_frames(path: Path, sample: Sample) -> Clip:
    """Decode a video once (twice where it does not tell its length rightly) and keep the frames that `sample` names.

    Raises:
        ValueError: PyAV is missing, or the file is, or it cannot be decoded, has no picture, or no frame.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise DuetError(f"video {str(path)!r} {kind}: give the path of a video file.")
    av = _pyav()
    try:
        total, rate = _length(av, path)
        while True:
            if not total:
                raise EOFError
            wanted = sample(total, rate)
            frames, times, seen = _keep(av, path, wanted)
            if len(times) == len(wanted):
                break
            total = seen  # the file promised more frames than it holds
    except EOFError as error:
        raise DuetError(f"video {str(path)!r} holds no frame: give a whole video file.") from error
    except (av.FFmpegError, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(". ")
        raise DuetError(f"video {str(path)!r} cannot be decoded ({reason}): give a whole video file.") from error
    told = [index / rate if time is None else time for index, time in zip(wanted, times, strict=True)]
    return Clip(frames, wanted, told, total, rate)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise DuetError(
            "reading a video needs PyAV: install it with pip install 'duet-vlm[video]', or give a picture."
        ) from error
    return av


def _open(av: Any, path: Path) -> tuple[Any, Any]:
    """The container and its stream of pictures; the cover of a song is none."""
    container = av.open(str(path))
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        only = "only sound" if container.streams.audio else "no picture"
        container.close()
        raise DuetError(f"video {str(path)!r} holds {only}: give a file with moving pictures.")
    streams[0].thread_type = "AUTO"
    return container, streams[0]


def _length(av: Any, path: Path) -> tuple[int, float]:
    """Frames and frames per second; counted by decoding where the file does not tell."""
    container, stream = _open(av, path)
    with container:
        rate = stream.average_rate or stream.guessed_rate
        total = stream.frames or sum(1 for _ in container.decode(stream))
    return int(total), float(rate) if rate else UNKNOWN_RATE


def _keep(av: Any, path: Path, wanted: list[int]) -> tuple[np.ndarray, list[float | None], int]:
    """The wanted frames and their times, as far as there are any, and how many frames were decoded to find them."""
    frames, seen = np.empty(0), 0
    times: list[float | None] = []
    for seen, frame in enumerate(_decoded(av, path), start=1):
        if seen - 1 == wanted[len(times)]:
            pixels = _upright(frame)
            if not times:
                frames = np.empty((len(wanted), *pixels.shape), np.uint8)
            frames[len(times)] = _fit(pixels, frames.shape[1:])
            times.append(frame.time)
            if len(times) == len(wanted):
                break
    return frames, times, seen


def _decoded(av: Any, path: Path) -> Iterator[Any]:
    container, stream = _open(av, path)
    with container:
        yield from container.decode(stream)


def _upright(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB; a telephone writes how it was held beside the pictures."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _fit(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A stream may change its size on the way; the first frame's counts."""
    if pixels.shape == shape:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
