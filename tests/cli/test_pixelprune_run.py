"""`duet run --method pixelprune` on a drawn window, from the picture's file to the answer and the drawing."""

from __future__ import annotations

from pathlib import Path

import pytest
import saved_video
from commands import answered, duet, refused
from PIL import Image, ImageDraw

ASK = ["--ask", "what is on the left ?"]


def window(file: Path) -> Path:
    """64 x 48 pixels, six rows of eight blocks: a bar above, and one icon that is two blocks wide."""
    image = Image.new("RGB", (64, 48), "#f0f0f0")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 64, 7), fill="#204080")
    draw.ellipse((25, 17, 38, 30), fill="#c02020")
    image.save(file)
    return file


# the first block of the bar, the first one below it, and what surrounds and holds the icon
@pytest.mark.parametrize(("method", "most"), [(["pixelprune"], 16), (["pixelprune+duet", "--keep", "0.2"], 16)])
def test_a_window_is_answered_from_what_does_not_repeat(tmp_path: Path, method: list[str], most: int) -> None:
    folder, picture = saved_video.save(tmp_path / "model", "qwen2_5_vl"), window(tmp_path / "window.png")
    shown = tmp_path / "shown.png"
    report = answered("run", str(picture), *ASK, "--model", str(folder), "--method", *method, "--show", str(shown))
    assert report["visual_tokens"] == 48 and report["config"]["pixelprune"] == 0
    first = report["trace"]["images"][0]
    assert 4 <= len(first["dominant"]) <= most and first["dominant"][:1] == [0] and 8 in first["dominant"]
    counts = report["trace"]["samples"][0]["tokens_per_layer"]
    assert counts[0] == len(first["dominant"]) and (counts[-1] < counts[0]) == (len(method) > 1)
    assert Image.open(shown).size[0] > 500


def test_it_is_refused_where_towers_take_pictures_whole(tmp_path: Path) -> None:
    result = duet("run", window(tmp_path / "window.png"), *ASK, "--method", "pixelprune")
    refused(result, "pixelprune is not possible for llava: it is for towers that take any number of patches")
