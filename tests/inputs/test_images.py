"""Pictures of every mode and depth, transparent or animated, as a careful viewer shows them."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from grey import DEPTHS, GREY, SCENE, png
from pictures import assert_shows, corners
from PIL import Image, TiffImagePlugin

from duet_vlm.inputs import images
from duet_vlm.inputs.images import read_image


@pytest.mark.parametrize("ending", ["tiff", "png", "pgm", "memory"])
@pytest.mark.parametrize("case", DEPTHS)
def test_every_depth_shows_the_same_grey(tmp_path: Path, case: str, ending: str) -> None:
    array = DEPTHS[case]
    picture = Image.fromarray(array)
    if ending == "memory":
        found = read_image(picture)
    else:
        file = tmp_path / f"p.{ending}"
        try:
            picture.save(file)
        except OSError:  # no floats in PNG and PGM, and nothing deeper than 16 bits
            file = file.with_suffix(".tiff")
            picture.save(file)
        found = read_image(file)
    seen = np.asarray(found)
    assert seen.shape == (40, 60, 3) and (seen[..., 0] == seen[..., 2]).all()
    # 255 of 8 bits is 1020 of 10, whose white is 1023
    assert np.abs(seen[..., 0].astype(int) - GREY).max() <= 1
    assert len(np.unique(seen)) >= len(np.unique(GREY)) - 1


def test_every_byte_order_in_memory() -> None:
    for mode, kind in (("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2")):
        picture = Image.frombytes(mode, SCENE.size, (GREY.astype(np.uint16) * 257).astype(kind).tobytes())
        assert (np.asarray(read_image(picture))[..., 0] == GREY).all()


@pytest.mark.parametrize("maximum", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_pgm_and_ppm_of_any_maximum(tmp_path: Path, kind: str, maximum: int) -> None:
    values = (GREY.astype(np.uint32) * maximum // 255).astype(">u2" if maximum > 255 else np.uint8)
    if kind == "P6":
        values = np.repeat(values[..., None], 3, 2)
    (tmp_path / "p.ppm").write_bytes(f"{kind} 60 40 {maximum}\n".encode() + values.tobytes())
    assert np.abs(np.asarray(read_image(tmp_path / "p.ppm"))[..., 0].astype(int) - GREY).max() <= 1


def test_rgb_of_16_bits(tmp_path: Path) -> None:
    pixels = np.asarray(corners()).astype(np.uint16) * 257
    file = png(tmp_path / "p.png", 40, [row.astype(">u2").tobytes() for row in pixels], 16, 2)
    assert_shows(read_image(file), np.asarray(corners()), 0.01)


@pytest.mark.parametrize(
    ("depth", "color", "row", "clear", "expected"),
    [
        (1, 0, b"\x40", b"\0\x01", [0, 255, 0]),
        (2, 0, b"\x6c", b"\0\x01", [255, 170, 255]),  # 1, 2, 3
        (4, 0, b"\x6f\x10", b"\0\x06", [255, 255, 17]),
        (8, 0, b"\x60\xf0\x10", b"\0\x60", [255, 240, 16]),
        (16, 0, b"\x60\x60\xff\xff\x01\x01", b"\x60\x60", [255, 255, 1]),
        (8, 2, b"\x60" * 3 + b"\xf0" * 3 + b"\x10" * 3, b"\0\x60" * 3, [255, 240, 16]),
        (16, 2, b"\x60" * 6 + b"\xf0" * 6 + b"\x10" * 6, b"\x60\x60" * 3, [255, 240, 16]),
    ],
)
def test_one_transparent_color_of_a_png_is_white(
    tmp_path: Path, depth: int, color: int, row: bytes, clear: bytes, expected: list[int]
) -> None:
    found = read_image(png(tmp_path / "p.png", 3, [row], depth, color, clear))
    assert np.asarray(found)[0, :, 0].tolist() == expected


def see_through() -> Image.Image:
    """Red: clear, half and solid."""
    picture = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    picture.putpixel((0, 0), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 128))
    return picture


@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_transparent_parts_are_on_white(tmp_path: Path, ending: str) -> None:
    see_through().save(tmp_path / f"p.{ending}", **({"lossless": True, "exact": True} if ending == "webp" else {}))
    found = np.asarray(read_image(tmp_path / f"p.{ending}"))[0]
    assert found.tolist() == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


def test_palettes_with_transparency_are_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.putdata([0, 1, 2])
    picture.save(tmp_path / "bytes.png", transparency=bytes([0, 128, 255]))
    expected = [[255, 255, 255], [127, 227, 127], [0, 0, 200]]
    assert np.asarray(read_image(tmp_path / "bytes.png"))[0].tolist() == expected
    for ending in ("png", "gif"):
        picture.save(tmp_path / f"one.{ending}", transparency=1)
        found = np.asarray(read_image(tmp_path / f"one.{ending}"))[0].tolist()
        assert found == [[200, 0, 0], [255, 255, 255], [0, 0, 200]]


def test_every_mode_in_memory() -> None:
    color = (200, 100, 50)
    plain = Image.new("RGB", (4, 2), color)
    for mode in ("RGB", "RGBX", "RGBA", "RGBa", "YCbCr", "HSV", "CMYK", "P", "LAB"):
        stored = plain.convert("RGBA").convert("RGBa") if mode == "RGBa" else plain.convert(mode)
        assert stored.mode == mode
        before = (stored.tobytes(), dict(stored.info))
        assert_shows(read_image(stored), np.asarray(plain), 4)
        assert (stored.tobytes(), dict(stored.info)) == before
    clear = Image.new("LA", (4, 2), (100, 0))
    colors = Image.new("PA", (4, 2), (1, 0))
    colors.putpalette([1, 2, 3] * 2)
    greys = ((Image.new("L", (4, 2), 100), 100), (Image.new("1", (4, 2), 0), 0), (Image.new("1", (4, 2), 1), 255))
    for stored, shown in (*greys, (clear, 255), (clear.convert("La"), 255), (colors, 255)):
        assert_shows(read_image(stored), np.full((2, 4, 3), shown), 0.01)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([100.5, 200.5, 300.5], [0, 128, 255]),
        ([0.0, np.nan, 1.0], [0, 0, 255]),
        ([0.25, np.inf, -np.inf], [64, 255, 0]),
        ([np.nan, np.inf, -np.inf], [0, 255, 0]),
        ([7.5, 7.5, 7.5], [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([0.0, 4000.0, 4095.0], [0, 249, 255]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    found = read_image(Image.fromarray(np.array([values], np.float32)))
    assert np.asarray(found)[0, :, 0].tolist() == expected


def test_whole_numbers_outside_16_bits_go_from_lowest_to_highest(tmp_path: Path) -> None:
    for values in ([-100, 0, 100], [10**9, 10**9 + 50, 10**9 + 100], [-32768, 0, 32768]):
        Image.fromarray(np.array([values], np.int32)).save(tmp_path / "p.tiff")
        assert np.asarray(read_image(tmp_path / "p.tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_deep_pictures_whose_zero_is_white(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0106] = 0
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "p.tiff", tiffinfo=tags)
    file = bytearray((tmp_path / "p.tiff").read_bytes())
    at = file.index(struct.pack("<HHI", 0x0106, 3, 1)) + 8
    file[at : at + 2] = b"\0\0"
    (tmp_path / "p.tiff").write_bytes(file)
    assert (np.asarray(read_image(tmp_path / "p.tiff"))[..., 0] == 255 - GREY).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_the_first_frame_is_shown_and_the_others_are_told_of(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_told", [])
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"p.{ending}", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_shows(read_image(tmp_path / f"p.{ending}"), np.full((8, 8, 3), (255, 0, 0)), 3)
    assert [f"p.{ending}" in r.getMessage() and "only the first" in r.getMessage() for r in caplog.records] == [True]


def test_a_phone_photo_with_a_preview_is_one_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_told", [])
    corners().save(tmp_path / "p.mpo", save_all=True, append_images=[corners().resize((8, 8))])
    assert read_image(tmp_path / "p.mpo").size == (40, 24) and not caplog.records
