"""Pictures that cannot be read are one sentence with their name, the same from the check as from the reader."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey import DEPTHS, GREY, png
from pictures import assert_shows, corners
from PIL import Image

from duet_vlm.errors import DuetError
from duet_vlm.inputs import images, paths
from duet_vlm.inputs.images import read_image, size_of


def refused(file: Path) -> str:
    with pytest.raises(DuetError) as refusal:
        read_image(file)
    with pytest.raises(DuetError) as again:
        size_of(file)
    assert str(again.value) == str(refusal.value) and repr(str(file)) in str(refusal.value)
    return str(refusal.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in refused(tmp_path / "none.png")
    assert "does not exist" in refused(tmp_path / ("long" * 200 + ".png"))
    assert "does not exist" in refused(tmp_path / "zero\0.png")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "text.png").write_text("a cat")
    assert "is no picture" in refused(tmp_path / "text.png")
    refused(png(tmp_path / "empty.png", 0, [b""], 8, 0))
    corners().save(tmp_path / "wrong ending.jpg", "PNG")
    assert_shows(read_image(tmp_path / "wrong ending.jpg"), np.asarray(corners()), 0.01)
    monkeypatch.setattr(paths.os, "access", lambda *_: False)
    assert "may not be read" in refused(tmp_path / "text.png")


def test_a_picture_without_a_pixel_in_memory() -> None:
    with pytest.raises(DuetError, match=r"^the picture handed over .*it has no pixel"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(DuetError, match=r"^a picture of type ndarray cannot be read: give a path or a PIL image\.$"):
        read_image(GREY)


def test_a_picture_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corners().save(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "is too large" in refused(tmp_path / "p.png")


def test_every_damage_is_one_sentence_and_the_same_for_the_check(tmp_path: Path) -> None:
    """Cut anywhere, and with changed bytes: read, or refused with the name; by the check as by the reader."""
    rng = random.Random(2)
    wholes = []
    kinds = {"png": "P", "jpg": "RGB", "gif": "P", "webp": "RGBA", "bmp": "RGB", "tiff": "I;16"}
    for ending, mode in kinds.items():
        picture = Image.fromarray(DEPTHS["16 bit"]) if mode == "I;16" else corners().convert(mode)
        picture.save(tmp_path / f"p.{ending}")
        wholes.append((ending, (tmp_path / f"p.{ending}").read_bytes()))
    outcomes = set()
    for _ in range(1500):
        ending, whole = rng.choice(wholes)
        changed = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.sample(range(len(changed)), min(len(changed), rng.randint(0, 4))):
            changed[place] = rng.randrange(256)
        file = tmp_path / f"x.{ending}"
        file.write_bytes(changed)
        try:
            width, height = read_image(file).size
        except DuetError:
            refused(file)
            outcomes.add((ending, "refused"))
        else:
            assert size_of(file) == (height, width)
            outcomes.add((ending, "read"))
    assert len(outcomes) == 12


def test_a_mistake_of_ours_is_not_taken_for_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(values: Any) -> Any:
        raise KeyError("a bug")

    Image.fromarray(DEPTHS["16 bit"]).save(tmp_path / "p.png")
    monkeypatch.setattr(images, "_eight_bits", broken)
    with pytest.raises(KeyError, match="a bug"):
        read_image(tmp_path / "p.png")
