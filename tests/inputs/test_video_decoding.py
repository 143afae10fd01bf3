"""Frames of a file: the right ones, upright, and no more memory than they take; every bad file with its sentence."""

from __future__ import annotations

import builtins
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import clip, held, level, picture, song

from duet_vlm.families.video.sampling import Sampling, ends, ends_down, middles, starts
from duet_vlm.inputs.video.decoding import Clip, is_video, read_frames


def every(total: int, rate: float) -> list[int]:
    return list(range(total))


def shades(found: Clip) -> list[int]:
    """Which frames of `clip` these are, by the grey of a corner that nothing else touches."""
    return [round((float(frame[2:14, -12:].mean()) - level(0)) / 12) for frame in found.frames]


KINDS = [("mp4", "mpeg4"), ("avi", "mpeg4"), ("mkv", "libx264"), ("webm", "libvpx")]


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_the_frames_asked_for(tmp_path: Path, ending: str, codec: str) -> None:
    file = clip(tmp_path / f"clip.{ending}", 12, codec=codec)
    found = read_frames(file, lambda total, rate: [0, 3, 4, 11])
    assert found.frames.shape == (4, 32, 48, 3) and found.frames.dtype == np.uint8
    assert found.indices == [0, 3, 4, 11] == shades(found)
    assert (found.total, found.rate, found.duration) == (12, 10.0, 1.2)
    assert np.allclose(found.times, [0, 0.3, 0.4, 1.1], atol=0.002)
    for index, frame in zip(found.indices, found.frames, strict=True):
        assert np.abs(frame.astype(int) - picture(index)).mean() < 6


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_upright(tmp_path: Path, degrees: int) -> None:
    found = read_frames(held(clip(tmp_path / "clip.mp4"), degrees, tmp_path / "held.mp4"), lambda total, rate: [5])
    # a matrix of 90 degrees turns clockwise, as players do
    expected = np.rot90(picture(5), -degrees // 90)
    assert found.frames[0].shape == expected.shape
    assert np.abs(found.frames[0].astype(int) - expected).mean() < 6


def test_fewer_frames_than_the_file_says(tmp_path: Path) -> None:
    file = clip(tmp_path / "clip.avi", 20)
    data, at = file.read_bytes(), 0
    for _ in range(13):
        at = data.index(b"00dc", at + 1)  # where a frame begins
    file.write_bytes(data[:at])
    found = read_frames(file, Sampling(ends, 4))
    assert 9 < found.total < 13 and found.indices[-1] == found.total - 1
    assert shades(found) == found.indices


def test_memory_of_the_sampled_frames_alone(tmp_path: Path) -> None:
    file = clip(tmp_path / "clip.mp4", 60, 256, 256)
    tracemalloc.start()
    found = read_frames(file, Sampling(starts, 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.frames.nbytes == 4 * 256 * 256 * 3
    # the frames, and two more while one is turned upright
    assert peak < found.frames.nbytes + 3 * 256 * 256 * 3


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = clip(folder / "whole.mp4").read_bytes()
    files = {
        "missing": (folder / "no.mp4", "does not exist: give the path of a video file."),
        "folder": (folder, "is a folder: give the path of a video file."),
        "text": (folder / "text.mp4", "cannot be decoded (Invalid data found when processing input): give a whole"),
        "empty": (folder / "empty.mp4", "cannot be decoded (Invalid data found when processing input): give a whole"),
        "cut": (folder / "cut.mp4", "cannot be decoded (Invalid data found when processing input): give a whole"),
        "sound": (song(folder / "song.mp4"), "holds only sound: give a file with moving pictures."),
        "no frame": (clip(folder / "none.mkv", 0), "holds no frame: give a whole video file."),
    }
    files["text"][0].write_text("a film about a cat")
    files["empty"][0].write_bytes(b"")
    files["cut"][0].write_bytes(whole[: len(whole) // 2])
    return files


@pytest.mark.parametrize("case", ["missing", "folder", "text", "empty", "cut", "sound", "no frame"])
def test_files_that_are_no_video_are_refused(tmp_path: Path, case: str) -> None:
    path, message = bad_files(tmp_path)[case]
    with pytest.raises(ValueError) as refusal:
        read_frames(path, every)
    assert str(refusal.value).startswith(f"video {str(path)!r} ") and message in str(refusal.value)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    file = clip(tmp_path / "clip.mp4")
    monkeypatch.delitem(sys.modules, "av")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs PyAV: install it with pip install 'duet-vlm\[video\]'"):
        read_frames(file, every)


def test_is_video() -> None:
    assert is_video(Path("a.MP4")) and is_video(Path("b/c.webm")) and not is_video(Path("a.gif"))


def test_places_of_frames_are_spread_as_each_family_spreads_them() -> None:
    assert starts(10, 4) == [0, 2, 5, 7]
    assert ends(10, 4) == [0, 3, 6, 9]
    assert ends_down(11, 4) == [0, 3, 6, 10]
    assert middles(10, 4) == [1, 3, 6, 8]


@pytest.mark.parametrize("places", [starts, ends, ends_down, middles])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 64, 1000])
def test_places_are_different_and_inside(places: Any, total: int) -> None:
    for count in range(1, min(total, 70) + 1):
        found = places(total, count)
        assert len(set(found)) == count and found == sorted(found)
        assert found[0] >= 0 and found[-1] < total
    if total <= 70:
        assert places(total, total) == list(range(total))


@pytest.mark.parametrize(
    ("sampling", "total", "rate", "count"),
    [
        (Sampling(count=8), 100, 25.0, 8),
        (Sampling(count=8), 5, 25.0, 5),
        (Sampling(rate=2.0, minimum=4, multiple=2), 100, 25.0, 8),
        (Sampling(rate=2.0, minimum=4, multiple=2), 120, 25.0, 8),  # 9.6
        (Sampling(rate=2.0, minimum=4, multiple=2), 10, 25.0, 4),
        (Sampling(rate=2.0, minimum=4, multiple=2), 3, 25.0, 2),
        (Sampling(rate=2.0, minimum=4, multiple=2), 1, 25.0, 1),
        (Sampling(rate=2.0, minimum=4, maximum=768), 25 * 1000, 25.0, 768),
        (Sampling(ends_down, count=64, rate=1.0, skip=1.0), 250, 25.0, 10),
        (Sampling(ends_down, count=64, rate=1.0, skip=1.0), 2500, 25.0, 64),
        (Sampling(ends_down, count=64, rate=1.0, skip=1.0), 5, 25.0, 1),
    ],
)
def test_how_many_frames_a_rate_takes(sampling: Sampling, total: int, rate: float, count: int) -> None:
    assert len(sampling(total, rate)) == count


def test_a_long_video_is_cut_at_both_ends() -> None:
    found = Sampling(ends_down, count=8, rate=1.0, skip=1.0)(500, 25.0)
    assert (found[0], found[-1]) == (25, 475)


def test_as_many_frames_as_asked_for_or_a_refusal() -> None:
    assert Sampling(rate=2.0, minimum=4, multiple=2).exactly(3)(9, 3.0) == [0, 3, 6]
    with pytest.raises(ValueError, match=r"10 frames are more than the 9 of this video: ask for at most 9\."):
        Sampling(count=8).exactly(10)(9, 3.0)
