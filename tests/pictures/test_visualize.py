"""The picture of what was kept: where its tokens come from, and what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from saved import photo

import duet_vlm
from duet_vlm import Drop, DuetConfig, Trace
from duet_vlm.families import audience
from duet_vlm.pictures.drawing import borders, wrap
from duet_vlm.pictures.frames import Shown, change, seen
from duet_vlm.pictures.picture_words import as_written, words_of
from duet_vlm.pictures.shading import DROPPED, GONE, cluster_colors, shade, tinted
from duet_vlm.pictures.spread import CLS, patches_of
from duet_vlm.pictures.visualize import draw

GRID = 6  # of the tiny models
BOTH = DuetConfig(10, 4, 3, drops=[Drop(2, 0.5), Drop(4, 0.0)], query="all")


def traced(family: str, config: DuetConfig) -> tuple[Trace, torch.Tensor, torch.Tensor]:
    """The trace of a prompt with one image, and its image features uncompressed and compressed."""
    model, batch = tiny.build(family), tiny.inputs(family)
    images = {k: v for k, v in batch.items() if k in ("pixel_values", "image_sizes")}

    with torch.no_grad():
        stock = model.model.get_image_features(**images, return_dict=True).pooler_output[0]
        with duet_vlm.apply(model, config) as handle:
            with audience.for_engine():
                output = model.model.get_image_features(**images, return_dict=True)
            merged = output.duet.features[0] if config.merges else output.pooler_output[0]
            model(**batch)
            trace = handle.trace
    assert trace is not None
    return trace, stock, merged


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_places_hold_the_patches_they_are_said_to(family: str) -> None:
    trace, stock, merged = traced(family, BOTH)
    places, first = patches_of(trace, tiny.PATCHES), trace.samples[0].visual[0]
    image = trace.images[0]
    assert len(image.dominant) + len(image.anchors) + (family == "llava") == len(places) == 14
    assert list(places.values()).count(CLS) == (family == "llava")
    changed = {anchor for anchor, members in zip(image.anchors, image.clusters, strict=True) if members}
    assert changed
    for place, patch in places.items():
        if patch != CLS:  # a dominant token is what it was, a contextual one is not
            same = torch.allclose(merged[place - first], stock[patch], atol=1e-4)
            assert same == (patch not in changed)
    assert {p for p in places.values() if p != CLS} == {*image.dominant, *image.anchors}
    assert set(trace.samples[0].drops[1].kept) <= {*places, *trace.samples[0].visual[tiny.PATCHES :]}


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_places_without_stage_1(family: str) -> None:
    trace, _, _ = traced(family, DuetConfig(drops=[Drop(2, 0.5)], query="last"))
    first = trace.samples[0].visual[0]
    assert patches_of(trace, tiny.PATCHES) == {first + i: i for i in range(tiny.PATCHES)}


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        (BOTH, ["image", "stage 1", "drop 2", "drop 4", "tokens"]),
        (DuetConfig(10, 0), ["image", "stage 1", "tokens"]),
        (DuetConfig(20, 16, merging="visionzip"), ["image", "stage 1", "tokens"]),
        (DuetConfig(drops=[Drop(1, 0.7), Drop(2, 0.5), Drop(3, 0.2), Drop(4, 0.1)], query="last"),
         ["image", "drop 1", "drop 2", "drop 3", "drop 4", "tokens"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_a_picture_has_a_panel_for_every_stage_and_drop(
    family: str, config: DuetConfig, labels: list[str], tmp_path: Path
) -> None:
    trace, _, _ = traced(family, config)
    words = [("what", "salient"), ("costs", "salient"), ("$3", "plain"), ("and", "plain"), ("$4?", "last")] * 9
    counts = trace.samples[0].tokens_per_layer
    shown = [Shown(Image.open(photo(tmp_path / "photo.png")), 0, GRID * GRID)]
    figure = draw(shown, trace, (GRID, GRID), words, "a $title$ " * 30, counts)
    assert [axes.get_label() for axes in figure.axes] == labels
    bars = [patch.get_height() for patch in figure.axes[-1].patches][-len(counts) :]
    assert bars == counts
    figure.savefig(tmp_path / "kept.png", dpi=40)
    with Image.open(tmp_path / "kept.png") as drawn:
        drawn.load()
        assert drawn.width > 300 and np.asarray(drawn).std() > 10


def test_nothing_compressed_is_the_image_alone(tmp_path: Path) -> None:
    shown = [Shown(Image.open(photo(tmp_path / "photo.png")), 0, GRID * GRID)]
    figure = draw(shown, None, (GRID, GRID), [("why", "plain")], "none", [36] * 5)
    assert [axes.get_label() for axes in figure.axes] == ["image", "tokens"]


def test_shade_keeps_what_is_kept() -> None:
    trace, _, _ = traced("llava", BOTH)
    merged = trace.images[0]
    base = np.random.default_rng(0).uniform(0.5, 1, (GRID * 8, GRID * 8, 3)).astype(np.float32)
    kept = {*merged.dominant, *merged.anchors}
    shaded = shade(base, (GRID, GRID), kept, set(), merged, cluster_colors(merged))
    members = {place for cluster in merged.clusters for place in cluster}
    assert members and not members & kept
    for patch in range(GRID * GRID):
        row, column = divmod(patch, GRID)
        part = np.s_[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        if patch in kept:
            assert np.array_equal(shaded[part], base[part])
        elif patch in members:
            color = next(cluster_colors(merged)[a] for a, c in zip(merged.anchors, merged.clusters) if patch in c)  # noqa: B905
            assert np.allclose(shaded[part], (base[part] + np.asarray(color)) / 2)
        else:
            assert shaded[part].max() < 0.5 and np.ptp(shaded[part], axis=2).max() < 0.05  # dark, without a hue
    assert len(set(cluster_colors(merged).values())) == len(merged.anchors)


@pytest.mark.parametrize("how", ["squeezed", "cut", "unknown"])
def test_seen_is_what_the_tower_saw(how: str, tmp_path: Path) -> None:
    image = Image.open(photo(tmp_path / "photo.png", 300, 200))
    cut = image.crop((50, 0, 250, 200))
    source = {"squeezed": image, "cut": cut, "unknown": image.rotate(90)}[how]
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
    raw = np.asarray(source.resize((48, 48), Image.Resampling.BICUBIC)) / 255
    found = seen(image, ((raw - mean) / std).transpose(2, 0, 1), mean, std)
    assert found.size == {"squeezed": (300, 200), "cut": (200, 200), "unknown": (48, 48)}[how]
    said = {"squeezed": ", squeezed as the model sees it", "cut": " of its middle square"}
    assert change(image, found, (6, 6)) == said.get(how, ", as the model sees it")
    assert change(image, image, (6, 9)) == ""
    if how == "cut":
        assert np.array_equal(np.asarray(found), np.asarray(cut))


def test_what_is_dropped_here_looks_like_nothing_else_on_any_picture() -> None:
    """On white, grey and black pictures: kept is as it was, the rest has the legend's colours, in stripes."""
    for light in (0.0, 0.5, 1.0):
        base = np.full((8, 24, 3), light, np.float32)
        kept, dropped, gone = np.split(shade(base, (1, 3), {0}, {1}, None, {}), 3, axis=1)
        assert np.array_equal(kept, base[:, :8])
        assert (dropped[..., 0] - dropped[..., 1:].max(-1) > 0.2).all()
        assert np.ptp(gone, axis=2).max() < 0.05 and gone.max() < 0.5
        assert gone.std() > 0.01 and dropped.std() > 0.01  # striped
        assert np.allclose(gone.mean((0, 1)), GONE, atol=0.01)
        assert np.allclose(dropped.mean((0, 1)), DROPPED, atol=0.01)
        assert np.abs(gone - light).min() > 0.1


def test_a_tint_is_the_legends_colour_on_average_and_shows_the_image() -> None:
    rng = np.random.default_rng(0)
    for low, high in ((0.0, 0.2), (0.0, 1.0), (0.8, 1.0)):
        base = rng.uniform(low, high, (48, 48, 1)).repeat(3, axis=-1)
        found = tinted(base, GONE, striped=False)
        assert np.allclose(found.mean((0, 1)), GONE, atol=0.01)
        assert np.corrcoef(found[..., 0].ravel(), base[..., 0].ravel())[0, 1] > 0.99


def test_the_legend_tells_dropped_from_gone_and_fits(tmp_path: Path) -> None:
    trace, _, _ = traced("llava", BOTH)
    shown = [Shown(Image.open(photo(tmp_path / "photo.png")), 0, GRID * GRID)]
    words = [("why", "salient"), ("?", "last")]
    for config in (BOTH, DuetConfig(10, 4, 3)):
        trace, _, _ = traced("llava", config)
        figure = draw(shown, trace, (GRID, GRID), words, "title", trace.samples[0].tokens_per_layer)
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("red: dropped here" in labels) == (config is BOTH) and "grey: gone before" in labels
        figure.canvas.draw()
        box, whole = figure.legends[0].get_window_extent(), figure.bbox
        assert box.x0 >= 0 and box.x1 <= whole.x1 and box.y0 >= -1
        assert box.y1 < figure.axes[-1].get_tightbbox().y0 + 2


def test_a_long_title_is_not_cut_before_the_answer(tmp_path: Path) -> None:
    shown = [Shown(Image.open(photo(tmp_path / "photo.png")), 0, GRID * GRID)]
    title = "downsample+pyramiddrop, 12.3 of 36 visual tokens on average, answer: a red square and a very long sentence"
    figure = draw(shown, None, (GRID, GRID), [("why", "plain")], title, [36] * 5)
    assert " ".join(text.get_text() for text in figure.texts) == title


def test_anchors_keep_their_numbers_and_pictures_have_an_edge(tmp_path: Path) -> None:
    trace, _, _ = traced("llava", DuetConfig(10, 4, 3, drops=[Drop(2, 0.5)], query="all"))
    shown = [Shown(Image.open(photo(tmp_path / "photo.png")), 0, GRID * GRID)]
    figure = draw(shown, trace, (GRID, GRID), [("why", "plain")], "title", trace.samples[0].tokens_per_layer)
    image, merged, dropped = figure.axes[:3]
    anchors = trace.images[0].anchors
    places = patches_of(trace, GRID * GRID)
    kept = [a for a in anchors if a in {places[p] for p in trace.samples[0].drops[1].kept}]
    assert 0 < len(kept) < len(anchors)

    def numbers(axes: Any) -> list[str]:
        return [text.get_text() for text in axes.texts if text.get_text().isdigit()]

    assert set(numbers(merged)) == {str(i + 1) for i in range(len(anchors))}
    assert numbers(dropped) == [str(anchors.index(a) + 1) for a in kept]
    assert all(spine.get_visible() and spine.get_linewidth() > 0 for spine in image.spines.values())


def test_a_shrunk_image_is_drawn_as_the_model_saw_it(tmp_path: Path) -> None:
    trace, _, _ = traced("llava", DuetConfig(downsample=(2, 3), drops=[Drop(2, 0.5)], query="all"))
    image = Image.open(photo(tmp_path / "photo.png")).convert("RGB")
    words, counts = [("why", "plain")], trace.samples[0].tokens_per_layer
    figure = draw([Shown(image, 0, GRID * GRID)], trace, (GRID, GRID), words, "title", counts, small=(2, 3))
    assert [axes.get_label() for axes in figure.axes] == ["image", "stage 1", "drop 2", "tokens"]
    sharp, seen_, dropped = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:3])
    assert len(np.unique(seen_.reshape(-1, 3), axis=0)) <= 16 * 24 < len(np.unique(sharp.reshape(-1, 3), axis=0))
    cells = [cell for row in np.split(dropped, 2) for cell in np.split(row, 3, axis=1)]
    original = [cell for row in np.split(seen_, 2) for cell in np.split(row, 3, axis=1)]
    assert sum(np.array_equal(a, b) for a, b in zip(cells, original, strict=True)) == counts[-1] == 3
    assert "2 rows and 3 columns of patches" in [text.get_text() for text in figure.axes[1].texts]


def test_the_users_word_stands_where_the_tokenizer_knew_none() -> None:
    words = [("what", "salient"), ("<unk>", "salient"), ("is", "plain"), ("the", "plain"), ("<unk>?", "last")]
    words.append(("A:", "last"))
    asked = "What hue is the giraffe?"
    assert [w for w, _ in as_written(words, asked, "<unk>")] == ["what", "hue", "is", "the", "giraffe?", "A:"]
    assert [kind for _, kind in as_written(words, asked, "<unk>")] == [kind for _, kind in words]
    assert as_written(words, asked, None) == words


def test_words_of_marks_what_asks() -> None:
    ids = [5, 6, tiny.IMAGE, 7, 9, 8, 10]  # words of ids divisible by three are " cat"
    words = words_of(ids, [4, 6], 3, tiny.Words())
    assert words == [("the", "plain"), ("cat", "salient"), ("the", "plain"), ("the", "last")]


def test_wrap_and_borders() -> None:
    lines: Any = wrap([("aaaa", "plain")] * 5, 9)
    assert [len(line) for line in lines] == [2, 2, 1]
    for patches, sides in (({0}, 4), ({0, 1}, 6), (set(range(16)), 16)):
        assert len(borders(patches, (4, 4), 10)) == sides
