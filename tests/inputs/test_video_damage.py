"""Videos whose header lies, that are turned, mirrored, full of gaps, or damaged: read as a player would, or refused."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import clip, level, picture

from duet_vlm.errors import DuetError
from duet_vlm.families.video.sampling import Sampling, ends
from duet_vlm.inputs.video.decoding import Clip, read_frames

FOUR = Sampling(ends, 4)


def shades(found: Clip) -> list[int]:
    """Which frames of `clip` these are."""
    return [round((float(frame[2:14, -12:].mean()) - level(0)) / 12) for frame in found.frames]


def changed(file: Path, name: bytes, offset: int, value: bytes) -> Path:
    """The file with other bytes behind the first place of a name."""
    data = bytearray(file.read_bytes())
    at = data.index(name) + len(name) + offset
    data[at : at + len(value)] = value
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("offset", "value", "rate"),
    [
        (24, 0, 10), (28, 0, 10), (28, 10**9, 24), (24, 10**9, 24),  # scale and rate
        (36, 0, 10), (36, 5, 10), (36, 10**9, 10),  # frames
    ],
)  # fmt: skip
def test_an_avi_whose_header_lies(tmp_path: Path, offset: int, value: int, rate: float) -> None:
    file = clip(tmp_path / "c.avi", 12)
    found = read_frames(changed(file, b"strh", offset, struct.pack("<I", value)), FOUR)
    assert (found.total, found.rate) == (12, rate)
    assert found.indices == shades(found) == [0, 4, 7, 11]
    assert np.allclose(found.times, [i / rate for i in found.indices], atol=0.002)


@pytest.mark.parametrize("unit", [0, 1, 2**31 - 1])
def test_an_mp4_whose_unit_of_time_is_none(tmp_path: Path, unit: int) -> None:
    file = changed(clip(tmp_path / "c.mp4", 12), b"mdhd", 12, struct.pack(">I", unit))
    found = read_frames(file, FOUR)
    assert (found.total, found.rate, found.duration) == (12, 24.0, 0.5)
    assert found.indices == shades(found) == [0, 4, 7, 11]
    assert found.times == [i / 24 for i in found.indices]


@pytest.mark.parametrize("duration", [0, 1, 2**31 - 1, 2**32 - 1])
def test_an_mp4_whose_frames_last_no_possible_time(tmp_path: Path, duration: int) -> None:
    file = changed(clip(tmp_path / "c.mp4", 12), b"stts", 12, struct.pack(">I", duration))
    found = read_frames(file, FOUR)
    assert found.total == 12 and 0 < found.rate <= 24 and found.times == sorted(found.times)
    assert found.indices == shades(found) == [0, 4, 7, 11]


def with_times(file: Path, times: list[float], codec: str) -> Path:
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("webm", "libvpx")]
)
def test_gaps_and_other_rates_are_told_by_the_time_stamps(tmp_path: Path, ending: str, codec: str) -> None:
    times = [i / 10 for i in range(10)] + [10 + i / 10 for i in range(10)]
    found = read_frames(with_times(tmp_path / f"c.{ending}", times, codec), FOUR)
    assert found.total == 20 and found.indices == shades(found) == [0, 6, 13, 19]
    assert np.allclose(found.times, [0, 0.6, 10.3, 10.9], atol=0.002)
    assert 10.9 < found.duration < 11.6


def test_times_start_with_the_first_frame(tmp_path: Path) -> None:
    """A transport stream starts at 1.4 s."""
    found = read_frames(clip(tmp_path / "c.ts", 12, codec="libx264"), FOUR)
    assert (found.total, found.rate) == (12, 10.0) and np.allclose(found.times, [0, 0.4, 0.7, 1.1], atol=0.002)


def test_one_frame(tmp_path: Path) -> None:
    for ending in ("mp4", "avi", "mkv"):
        found = read_frames(clip(tmp_path / f"c.{ending}", 1), FOUR)
        assert (found.total, found.indices, found.times) == (1, [0], [0.0]) and found.rate > 0


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((ONE, 0, 0, ONE), lambda p: p),
        ((-ONE, 0, 0, ONE), np.fliplr),
        ((ONE, 0, 0, -ONE), np.flipud),
        ((-ONE, 0, 0, -ONE), lambda p: np.rot90(p, 2)),
        ((0, ONE, -ONE, 0), lambda p: np.rot90(p, -1)),
        ((0, -ONE, ONE, 0), np.rot90),
        ((0, ONE, ONE, 0), lambda p: p.swapaxes(0, 1)),
        ((0, -ONE, -ONE, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
        ((0, 0, 0, 0), lambda p: p),
        ((64000, 2000, -2000, 64000), lambda p: p),
    ],
)
def test_turned_and_mirrored(tmp_path: Path, matrix: tuple[int, int, int, int], seen: Any) -> None:
    a, b, c, d = matrix
    value = b"".join(n.to_bytes(4, "big", signed=True) for n in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    found = read_frames(changed(clip(tmp_path / "c.mp4"), b"tkhd", 40, value), lambda total, rate: [5])
    expected = seen(picture(5))
    assert found.frames[0].shape == expected.shape
    assert np.abs(found.frames[0].astype(int) - expected).mean() < 6


def spoilt(file: Path, first: int, last: int) -> Path:
    """The video with zeros in the place of some packets."""
    with av.open(str(file)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(file.read_bytes())
    for position, size in packets[first:last]:
        assert position is not None
        data[position : position + size] = bytes(size)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp4", "mpeg4"), ("avi", "mpeg4"), ("mp4", "libx264"), ("ts", "libx264")]
)
def test_damage_in_the_middle_is_passed_over(tmp_path: Path, ending: str, codec: str) -> None:
    found = read_frames(spoilt(clip(tmp_path / f"c.{ending}", 20, codec=codec), 9, 11), FOUR)
    assert 12 < found.total < 19 and len(found.frames) == 4
    assert np.allclose((found.times[0], found.times[-1]), (0, 1.9), atol=0.002) and found.times == sorted(found.times)
    if codec == "mpeg4":  # each has its own time; H.264 hides the damage by copies
        assert np.allclose(found.times, [n / 10 for n in shades(found)], atol=0.002)


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "mpeg4"), ("avi", "mpeg4")])
def test_a_video_that_is_mostly_damage_is_refused(tmp_path: Path, ending: str, codec: str) -> None:
    file = spoilt(clip(tmp_path / f"c.{ending}", 20, codec=codec), 1, 20)
    with pytest.raises(DuetError, match=r"is damaged \(only 1 of its 20 frames can be decoded\): give a whole video"):
        read_frames(file, FOUR)


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libx264"), ("ts", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
def test_what_is_there_of_a_cut_video(tmp_path: Path, ending: str, codec: str) -> None:
    file = clip(tmp_path / f"c.{ending}", 40, codec=codec)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = read_frames(file, FOUR)
    assert 1 < found.total < 40 and found.indices[-1] == found.total - 1
    assert shades(found) == [i % 20 for i in found.indices]
