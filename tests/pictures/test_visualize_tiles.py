"""The picture of an image that was cut into tiles: every token is drawn where it stands, and the counts add up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saved
import saved_video
from commands import answered, duet
from PIL import Image

from duet_vlm.cli import request
from duet_vlm.families import visual_token_ids
from duet_vlm.inputs.images import read_image
from duet_vlm.pictures import drawing, visualize
from duet_vlm.pictures.frames import shown_image

ASK = ["--ask", "what is on the left of the red square ?"]
# visual tokens of the photo, patches that are drawn, tokens that end rows
FAMILIES = {
    "llava_next": (462, 196 + 14 * 18, 14),
    "llava_onevision": (106, 36 + 7 * 9, 7),
    "internvl": (13 * 16, 13 * 16, 0),
    "smolvlm": (5 * 16, 5 * 16, 0),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    for family in FAMILIES:
        if family == "llava_next":
            saved.save(folder / family, family)
        else:
            saved_video.save(folder / family, family)
    # blocks of random colours, so that every patch has one of its own
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(blocks).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "photo.png")
    return folder


def prepared(here: Path, family: str, **asked: Any) -> request.Prepared:
    file = here / "photo.png"
    return request.prepare_run(
        request.Request(file, ASK[1], str(here / family), device="cpu", **asked), read_image(file)
    )


@pytest.mark.usefixtures("number_words")
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_stand_where_their_pixels_are(here: Path, family: str) -> None:
    """A token's colour, read from what the tower was given, is that of the photo where the picture puts the token."""
    found = prepared(here, family)
    ids = found.inputs["input_ids"][0].tolist()
    visual = sum(i in visual_token_ids(found.model.config).values() for i in ids)
    whole, drawn, ends = FAMILIES[family]
    assert visual == whole
    side = {"llava_next": 14, "llava_onevision": 6}.get(family, 4)
    overview, tiled = shown_image(found, visual, (side, side))
    assert tiled.spread is not None and len(tiled.spread.ends) == ends
    numbers = list(overview.spread.tokens) if overview.spread else []
    if overview.spread is None:
        numbers = list(range(overview.number * side**2, (overview.number + 1) * side**2))
    everything = [*numbers, *tiled.spread.tokens, *tiled.spread.ends]
    assert sorted(everything) == list(range(visual)) and len(everything) == drawn + ends
    if family == "llava_onevision":
        return  # the packed tokens of four tiles are interpolated, so no token has pixels of its own
    processor = found.processor.image_processor
    pixels = found.inputs["pixel_values"].float().flatten(0, -4).numpy().transpose(0, 2, 3, 1)
    pixels = pixels * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    rows, columns = tiled.grid
    cell = pixels.shape[1] // side
    photo = np.asarray(found.image.resize((columns * cell, rows * cell), Image.Resampling.BICUBIC)) / 255
    differences = []
    for number, patches in tiled.spread.sources.items():
        for local, patch in patches.items():
            (y, x), (v, u) = divmod(local, side), divmod(patch, columns)
            mine = pixels[number, y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].mean((0, 1))
            differences.append(np.abs(mine - photo[v * cell : (v + 1) * cell, u * cell : (u + 1) * cell].mean((0, 1))))
    assert len(differences) == rows * columns
    assert np.mean(differences) < 0.05


@pytest.mark.usefixtures("number_words")
@pytest.mark.parametrize("method", ["duet", pytest.param("pyramiddrop", marks=pytest.mark.long)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_panels_add_up_to_the_bars(
    here: Path, tmp_path: Path, family: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[drawing.Panel]] = []
    compose = drawing.compose
    monkeypatch.setattr(drawing, "compose", lambda figure, p, *a: rows.extend(p) or compose(figure, p, *a))
    report = answered(
        "run", here / "photo.png", *ASK, "--model", here / family, "--method", method, "--keep", 0.5,
        "--show", tmp_path / "kept.png", "--max-new-tokens", 1,
    )  # fmt: skip
    overview, tiled = rows
    assert re.fullmatch(r"The image in \d+ tiles", tiled[0].heading)
    assert overview[0].heading in ("Base crop", "The image in one tile")
    for i, drop in enumerate(report["drops"]):
        kept = 0
        for panel in (overview[-len(report["drops"]) :][i], tiled[-len(report["drops"]) :][i]):
            kept += sum(int(n) for n in re.findall(r"(?:^|; )(\d+) of", panel.text))
        assert kept == drop["tokens"]
    assert len(report["drops"]) >= 2
    if method == "duet":
        words = [re.fullmatch(r"(\d+) dominant, (\d+) contextual from \d+", row[1].text) for row in rows]
        assert sum(int(n) for found in words for n in found.groups()) == report["tokens_in"]
    elif FAMILIES[family][2]:
        assert f"; {FAMILIES[family][2]} row ends are not drawn" in tiled[0].text


def test_tiles_that_fit_no_photo_are_drawn_one_by_one_and_counted(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    draw = visualize.draw
    monkeypatch.setattr("duet_vlm.pictures.spread.arranged", lambda *a: None)
    monkeypatch.setattr(visualize, "draw", lambda *a: notes.append(a[6]) or draw(*a))
    show = ("--show", tmp_path / "a.png", "--max-new-tokens", 1)
    result = duet("run", here / "photo.png", *ASK, "--model", here / "internvl", *show)
    assert result.exit_code == 0, result.output
    assert notes == ["4 of 13 tiles are drawn."]
