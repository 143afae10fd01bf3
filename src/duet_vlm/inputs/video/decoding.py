"""Frames of a video file, decoded by PyAV; only the frames asked for are ever held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DuetError
from ..paths import check_file

ENDINGS = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
UNKNOWN_RATE = 24.0  # frames per second where a file tells none, as in the stock processors
SLOWEST, FASTEST = 1 / 120, 1000.0  # frames per second; beyond them a unit of time stands in the place of a rate
TOLERANCE = 0.05  # by which time stamps, rounded to milliseconds in some containers, may differ from a true header

Sample = Callable[[int, float], list[int]]
"""Which frames to read: (frames of the video, frames per second) -> different indices in ascending order."""


@dataclass(frozen=True)
class Clip:
    """The frames read from a video.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, turned upright.
        indices: T places among the video's frames.
        times: T seconds from the video's first frame, by its time stamps, or by its rate where they are unusable.
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

    def metadata(self) -> dict[str, Any]:
        """What a processor is told of a video whose frames are chosen already."""
        height, width = self.frames.shape[1:3]
        return {
            "total_num_frames": self.total, "fps": self.rate, "duration": self.duration, "height": height,
            "width": width, "frames_indices": list(self.indices),
        }  # fmt: skip


def is_video(path: Path) -> bool:
    """Whether a file's ending says that it is a video."""
    return path.suffix.lower() in ENDINGS


def read_frames(path: Path, sample: Sample) -> Clip:
    """Decode a video once (twice where less of it can be decoded than it holds) and keep the frames `sample` names.

    The header is believed only where the packets bear it out: frames are counted, without decoding, and the rate is
    that of their time stamps. Packets that cannot be decoded are passed over, as players do.

    Raises:
        DuetError: PyAV is missing, or the file is, or it cannot be decoded, has no picture, or no frame, or most of it
            is damaged.
    """
    check_file(path, "video", "the path of a video file")
    av = _pyav()
    try:
        timeline = _timeline(av, path)
        packets = timeline.total
        while True:
            if not timeline.total:
                raise EOFError
            wanted = sample(timeline.total, timeline.rate)
            kept = _keep(av, path, wanted, timeline.whole)
            if len(kept.times) == len(wanted):
                break
            timeline = replace(timeline, total=kept.decoded)  # not every packet gives a frame
    except EOFError as error:
        raise DuetError(f"video {str(path)!r} holds no frame: give a whole video file.") from error
    except (av.FFmpegError, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(". ")
        raise DuetError(f"video {str(path)!r} cannot be decoded ({reason}): give a whole video file.") from error
    if 2 * timeline.total < packets:  # exactly half are pairs of half pictures
        raise DuetError(
            f"video {str(path)!r} is damaged (only {timeline.total} of its {packets} frames can be decoded): "
            "give a whole video file."
        )
    stamped = timeline.stamped and None not in kept.times and kept.times == sorted(kept.times)
    times = [time if stamped else index / timeline.rate for index, time in zip(wanted, kept.times, strict=True)]
    return Clip(kept.frames, wanted, times, timeline.total, timeline.rate)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise DuetError(
            "reading a video needs PyAV: install it with pip install 'duet-vlm[video]', or give a picture."
        ) from error
    return av


def _open(av: Any, path: Path, whole: bool) -> tuple[Any, Any]:
    """Open a file and find its stream of pictures. The cover picture of a song is not one.

    Returns:
        The container and the stream.
    """
    container = av.open(str(path), options={"ignore_editlist": "1"} if whole else {})
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        only = "only sound" if container.streams.audio else "no picture"
        container.close()
        raise DuetError(f"video {str(path)!r} holds {only}: give a file with moving pictures.")
    streams[0].thread_type = "AUTO"
    return container, streams[0]


@dataclass(frozen=True)
class _Timeline:
    """Frames, frames per second, whether time stamps can be trusted, and whether cuts (edit lists) are passed over."""

    total: int
    rate: float
    stamped: bool
    whole: bool


def _timeline(av: Any, path: Path, whole: bool = False) -> _Timeline:
    """Counts packets, which is cheap beside decoding them."""
    container, stream = _open(av, path, whole)
    total, stamps = 0, []
    with container:
        told = stream.average_rate or stream.guessed_rate
        for packet in _packets(av, container, stream):
            if packet.size and not packet.is_discard:
                total += 1
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None:
                    stamps.append(stamp)
        seconds = float((max(stamps) - min(stamps)) * stream.time_base) if len(stamps) > 1 else 0.0
    mean_rate = (len(stamps) - 1) / seconds if seconds > 0 else 0.0
    stamped = _plausible(mean_rate)
    rate = float(told) if told else 0.0
    if not whole and not _plausible(rate):  # an MP4's cuts are in the unit of time that is wrong
        return _timeline(av, path, whole=True)
    if stamped and not abs(rate - mean_rate) < TOLERANCE * mean_rate:
        rate = mean_rate
    return _Timeline(total, rate if _plausible(rate) else UNKNOWN_RATE, stamped, whole)


def _plausible(rate: float) -> bool:
    return SLOWEST <= rate <= FASTEST


@dataclass
class _Kept:
    """The frames found, their times from the first frame of the video, and how many were decoded to find them."""

    frames: np.ndarray
    times: list[Any]
    decoded: int = 0


def _keep(av: Any, path: Path, wanted: list[int], whole: bool) -> _Kept:
    """The wanted frames, as far as there are any; decoding ends with the last of them."""
    kept = _Kept(np.empty(0), [])
    start = None
    for frame in _decoded(av, path, whole):
        if not kept.decoded:
            start = frame.time
        if kept.decoded == wanted[len(kept.times)]:
            pixels = _upright(frame)
            if not kept.times:
                kept.frames = np.empty((len(wanted), *pixels.shape), np.uint8)
            kept.frames[len(kept.times)] = _fit(pixels, kept.frames.shape[1:])
            kept.times.append(None if frame.time is None or start is None else frame.time - start)
        kept.decoded += 1
        if len(kept.times) == len(wanted):
            break
    return kept


def _decoded(av: Any, path: Path, whole: bool) -> Iterator[Any]:
    """Every frame that can be decoded."""
    container, stream = _open(av, path, whole)
    with container:
        for packet in _packets(av, container, stream):
            try:
                frames = stream.decode(packet)
            except EOFError:  # nothing is left in the decoder
                return
            except av.FFmpegError:
                continue
            yield from frames


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """All packets and the empty one at the end, or as many as can be read."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        yield av.Packet()  # lets the decoder give what it still holds


def _upright(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB; a telephone writes beside the pictures how it was held, and if they are mirrored."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # a place (x, y) goes to (a x + c y, b x + d y)
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)


def _fit(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A stream may change its size on the way; the first frame's counts."""
    if pixels.shape == shape:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
