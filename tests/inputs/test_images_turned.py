"""Pictures are upright in every format, whatever stands in their EXIF."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import TURNED, assert_shows, block, corners, jpeg
from PIL import Image

from duet_vlm.inputs.images import read_image, size_of


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_every_orientation_in_every_format(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"p.{ending}"
    corners().save(file, exif=exif, **({"quality": 95} if ending == "jpg" else {}))
    expected = TURNED[orientation](np.asarray(corners()))
    assert_shows(read_image(file), expected)
    assert size_of(file) == expected.shape[:2]
    with Image.open(file) as opened:
        assert_shows(read_image(opened), expected)
    assert_shows(read_image(read_image(file)), expected)  # not turned twice


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path: Path, orientation: int) -> None:
    assert_shows(read_image(jpeg(tmp_path / "p.jpg", block(orientation))), np.asarray(corners()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "tag",
    [
        (0x0101, 7, b"abcd"), (0x0128, 9, struct.pack("<i", -5)), (0x0110, 11, struct.pack("<f", 1.5)),
        (0x011A, 7, b"abcd"), (0x0110, 99, b"abcd"), (0x010F, 2, b"\xff\xff\xff\xff"), (0x8769, 4, b"\xff" * 4),
    ],
)  # fmt: skip
def test_odd_tags_beside_the_orientation(tmp_path: Path, tag: tuple[int, int, bytes], order: str) -> None:
    file = jpeg(tmp_path / "p.jpg", block(6, tag, order=order))
    assert_shows(read_image(file), TURNED[6](np.asarray(corners())))
    corners().save(tmp_path / "p.png", exif=block(6, tag, order=order))
    assert_shows(read_image(tmp_path / "p.png"), TURNED[6](np.asarray(corners())))


def test_an_entry_that_points_nowhere_does_not_hide_the_orientation(tmp_path: Path) -> None:
    exif = bytearray(block(6, (0x010F, 2, struct.pack("<I", 90_000))))
    exif[14:18] = struct.pack("<I", 50)  # a text of 50 characters, far outside the block
    assert_shows(read_image(jpeg(tmp_path / "p.jpg", bytes(exif))), TURNED[6](np.asarray(corners())))


@pytest.mark.parametrize("count", [200, pytest.param(4000, marks=pytest.mark.long)])
def test_any_changed_exif_block_is_read_upright(tmp_path: Path, count: int) -> None:
    """Whatever byte changes beside the orientation's own and the block's head: it is read, and upright."""
    rng, file = random.Random(0), tmp_path / "p.jpg"
    others = (0x10F, 0x110, 0x11A, 0x128, 0x8769, 0x8825)
    whole = block(6, *((tag, kind, b"\0\0\0\x40") for tag in others for kind in (2, 5)))
    at = next(i for i in range(10, len(whole), 12) if whole[i : i + 2] == b"\x12\x01")
    free = [i for i in range(10, len(whole)) if not at <= i < at + 12]
    expected = TURNED[6](np.asarray(corners()))
    for _ in range(count):
        changed = bytearray(whole)
        for place in rng.sample(free, rng.randint(1, 4)):
            changed[place] = rng.randrange(256)
        if b"\x12\x01" in [changed[i : i + 2] for i in range(10, at, 12)]:
            continue  # another orientation now stands before
        assert_shows(read_image(jpeg(file, bytes(changed))), expected)


def test_random_bytes_as_exif_never_hide_a_picture(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(500):
        exif = rng.choice([b"", b"II*\0", b"MM\0*"]) + rng.randbytes(rng.randrange(60))
        found = read_image(jpeg(tmp_path / "p.jpg", exif))
        assert sorted(found.size) == [24, 40]


def test_orientation_of_imagemagick_and_of_xmp(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    expected, text = TURNED[6](np.asarray(corners())), PngInfo()
    raw = (b"Exif\0\0" + block(6)).hex()
    text.add_text("Raw profile type exif", f"\nexif\n{len(raw) // 2:8}\n{raw}\n")
    corners().save(tmp_path / "raw.png", pnginfo=text)
    assert_shows(read_image(tmp_path / "raw.png"), expected)
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    corners().save(tmp_path / "xmp.png", pnginfo=text)
    assert_shows(read_image(tmp_path / "xmp.png"), expected)
