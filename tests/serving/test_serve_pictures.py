"""Pictures that come in a request are read as those in files are, whatever is odd about them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from pictures import block, corners, jpeg
from PIL import Image
from serving import data_url

from duet_vlm.inputs.images import read_image
from duet_vlm.serving.limits import Limits, RequestError
from duet_vlm.serving.pictures import read_picture


def no_fetch(url: str, most: int) -> bytes:
    raise AssertionError(f"{url} was fetched")


def read(url: str, **limits: Any) -> Image.Image:
    return read_image(read_picture(url, Limits(**limits), no_fetch))


@pytest.mark.parametrize("odd", [(), ((0x011A, 7, b"abcd"),)], ids=["plain", "with a resolution that is no number"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_telephones_picture_stands_upright(tmp_path: Path, turn: int, odd: tuple[Any, ...]) -> None:
    file = jpeg(tmp_path / "picture.jpg", block(turn, *odd))
    sent = read(f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}")
    assert sent.tobytes() == read_image(file).tobytes() and sent.size == ((24, 40) if turn > 4 else (40, 24))


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_formats(format: str) -> None:
    picture = Image.new("RGB", (8, 6), (255, 0, 0))
    assert read(data_url(picture, format)).getpixel((3, 3))[0] > 250


@pytest.mark.parametrize("format", ["PPM", "TGA", "ICO", "PDF", "EPS"])
def test_formats_that_are_not_taken_from_others(format: str) -> None:
    with pytest.raises(RequestError, match="these bytes are no picture"):
        read(data_url(corners(), format))


def test_what_is_transparent_shows_white() -> None:
    assert read(data_url(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("end", [0, 1, 2])
def test_the_limit_of_bytes_is_exact(end: int) -> None:
    """Base64 pads: files of three lengths in a row, each at its limit and one above it."""
    url = data_url(corners())
    data = base64.b64decode(url.partition(",")[2]) + b"x" * end
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert read(url, image_bytes=len(data)).size == (40, 24)
    with pytest.raises(RequestError, match=f"more than the {len(data) - 1} bytes") as caught:
        read(url, image_bytes=len(data) - 1)
    assert caught.value.status == 413


def test_the_limit_of_pixels_is_exact() -> None:
    assert read(data_url(corners()), image_pixels=40 * 24).size == (40, 24)
    with pytest.raises(RequestError, match="40x24 pixels: 959 are allowed"):
        read(data_url(corners()), image_pixels=40 * 24 - 1)
