"""`duet run` on a video: every family, a row for each of a few frames, and every bad input with its sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import saved
import saved_video
from clips import clip, song
from commands import answered, duet, refused
from PIL import Image

from duet_vlm import DuetConfig
from duet_vlm.cli import request
from duet_vlm.engine.trace import DropTrace, ImageTrace, SampleTrace, Trace
from duet_vlm.inputs import model_folders
from duet_vlm.inputs.checkpoints import read_config
from duet_vlm.measuring.reinvest import frames_for
from duet_vlm.pictures.spread import image_of
from duet_vlm.pictures.visualize import CLS, patches_of

ASK = ["--ask", "what happens in the video ?"]
# visual tokens of all frames; encoded images; with --frames 5
WHOLE = {
    "video_llava": (5 * 37, 5),
    "qwen2_vl": (3 * 40, 3),
    "qwen2_5_vl": (3 * 40, 3),
    "qwen3_vl": (3 * 40, 3),
    **{name: (3 * 40, 3) for name in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")},
    "llava_onevision": (5 * 9 + 1, 5),
    "internvl": (5 * 16, 5),
    "smolvlm": (5 * 16, 5),
    "gemma3": (5 * 16, 5),
    "gemma4": (5 * 6 * 10, 5),
}

pytestmark = pytest.mark.usefixtures("number_words")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for family in saved_video.FAMILIES:
        saved_video.save(folder / family, family)
    clip(folder / "clip.mp4", 20, 64, 40)
    return folder


@pytest.mark.parametrize("family", WHOLE)
def test_a_video_runs_in_every_family_and_shows_a_row_for_each_frame(
    here: Path, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    notes: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        labels.extend(axes.get_label() for axes in self.axes)
        notes.extend(text.get_text() for text in self.texts if text.get_text().endswith("drawn."))
        save(self, *args, **{**kwargs, "dpi": 30})

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", noting)
    report = answered(
        "run", here / "clip.mp4", *ASK, "--model", here / family, "--frames", 5, "--compare", "--keep", 0.4,
        "--show", tmp_path / "kept.png", "--max-new-tokens", 2,
    )  # fmt: skip
    whole, encoded = WHOLE[family]
    assert report["visual_tokens"] == whole == len(report["trace"]["samples"][0]["visual"])
    assert len(report["trace"]["images"]) == encoded
    assert report["tokens_per_layer"][0] < whole and report["tokens_average"] < 0.75 * whole
    # windows of 24 tokens hold less than what is left of 300
    assert report["kv_bytes"] < report["uncompressed"]["kv_bytes"] or family == "gemma4"
    together = 2 if family.startswith(("qwen", "glm")) else 1
    first = [1 + together * number for number in ((0, 1, 2) if encoded == 3 else (0, 1, 3, 4))]
    drops = [f"drop {drop['layer']}" for drop in report["drops"]]
    expected = [f"{label} of frame {frame}" for frame in first for label in ("image", "stage 1", *drops)]
    assert labels == [*expected, "tokens"]
    assert notes == ([] if encoded == 3 else ["4 of 5 frames are drawn."])
    with Image.open(tmp_path / "kept.png") as drawn:
        drawn.load()
        assert np.asarray(drawn).std() > 10


@pytest.mark.parametrize("method", ["evs", "flashvid+duet"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_a_method_that_is_shown_the_whole_video(here: Path, tmp_path: Path, family: str, method: str) -> None:
    report = answered(
        "run", here / "clip.mp4", *ASK, "--model", here / family, "--frames", 5, "--method", method, "--keep", 0.4,
        "--show", tmp_path / "kept.png", "--max-new-tokens", 1,
    )  # fmt: skip
    (image,), (sample,) = report["trace"]["images"], report["trace"]["samples"]
    tokens, (whole, frames) = len(image["scores"]), WHOLE[family]
    retained = len(image["dominant"]) + len(image["anchors"])
    assert tokens == whole - (family == "llava_onevision") and retained == sample["tokens_per_layer"][0]
    assert retained % frames == 0
    assert (tmp_path / "kept.png").exists()


def test_nothing_compressed(here: Path, tmp_path: Path) -> None:
    common = ("run", here / "clip.mp4", *ASK, "--model", here / "video_llava", "--max-new-tokens", 2)
    stock = answered(*common, "--method", "none", "--show", tmp_path / "all.png")
    assert stock["visual_tokens"] == 8 * 37 == stock["tokens_average"]
    assert answered(*common, "--keep", 0.4, "--compare")["uncompressed"]["answer"] == stock["answer"] != ""


def test_a_video_is_not_called_an_image(here: Path) -> None:
    result = duet("run", here / "clip.mp4", *ASK, "--model", here / "video_llava", "--frames", 2, "--max-new-tokens", 1)
    assert "visual tokens of the video" in result.stdout and "of the image" not in result.stdout


def test_tokens_are_those_of_a_frame(here: Path) -> None:
    common = ("run", here / "clip.mp4", *ASK, "--frames", 4, "--max-new-tokens", 1, "--tokens", 12)
    for family, frames in (("video_llava", 4), ("qwen2_5_vl", 2)):
        report = answered(*common, "--model", here / family)
        assert abs(report["tokens_average"] - 12 * frames) <= 1 * frames, family


def test_as_many_frames_as_the_models_own_cost_without_compression(here: Path) -> None:
    common = ("run", here / "clip.mp4", *ASK, "--model", here / "video_llava", "--max-new-tokens", 1, "--keep", 0.2)
    own, more = answered(*common), answered(*common, "--frames", "auto")
    config = read_config(str(here / "video_llava"))
    visual, text = own["visual_tokens"], round(own["kv_tokens"] - own["tokens_average"])
    settings = DuetConfig.preset("duet", model=config, keep=0.2)
    count = frames_for(config, settings, visual // 8, 8, text)
    assert own["visual_tokens"] == 8 * 37 and more["visual_tokens"] == min(20, count) * 37 and count > 8
    alone = answered(*common[:-1], 1.0, "--method", "visionzip", "--frames", "auto")
    assert alone["visual_tokens"] == 8 * 37  # nothing is saved


def test_a_picture_for_a_video_model(here: Path, tmp_path: Path) -> None:
    picture = saved.photo(tmp_path / "photo.png")
    for family in ("qwen2_5_vl", "llava_onevision", "gemma4"):
        report = answered(
            "run", picture, *ASK, "--model", here / family, "--max-new-tokens", 1, "--show", tmp_path / f"{family}.png"
        )
        assert report["trace"]["images"] and (tmp_path / f"{family}.png").exists()


def test_without_a_chat_template(here: Path, tmp_path: Path) -> None:
    saved_video.save(tmp_path, "video_llava", template=False)
    report = answered("run", here / "clip.mp4", *ASK, "--model", tmp_path, "--max-new-tokens", 1)
    assert report["visual_tokens"] == 8 * 37


def test_image_models_refuse(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.save(tmp_path / "llava")
    loaded: list[Any] = []
    monkeypatch.setattr(request, "read_weights", lambda *a: loaded.append(a))
    message = "models of type 'llava' take pictures only: give --model one of type gemma3, gemma4, "
    refused(duet("run", here / "clip.mp4", *ASK, "--model", tmp_path / "llava"), message)
    monkeypatch.setitem(model_folders.SHIPPED, "demo", tmp_path / "llava")
    refused(duet("run", here / "clip.mp4", *ASK), message)
    assert not loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "0"], "--frames 0 shows the model nothing: give 1 or more."),
        (["--frames", "some"], "--frames 'some' is no number: write a whole one, or auto."),
        (["--frames", "-3"], "--frames -3 shows the model nothing: give 1 or more."),
        (["--frames", "21"], "21 frames are more than the 20 of this video: ask for at most 20."),
        (["--tokens", "300"], "cannot meet a budget of 300 tokens here"),
        (["--keep", "2"], "duet: --keep 2.0 must be a fraction in (0, 1]."),
    ],
)
def test_bad_options_for_videos_are_refused_before_weights_are_read(
    here: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(request, "read_weights", lambda *a: loaded.append(a))
    refused(duet("run", here / "clip.mp4", *ASK, "--model", here / "video_llava", *options), message)
    assert not loaded


def test_frames_of_a_picture(here: Path, tmp_path: Path) -> None:
    picture = saved.photo(tmp_path / "photo.png")
    message = f"--frames 4 is for videos, and {str(picture)!r} is none by its ending: leave it out."
    refused(duet("run", picture, *ASK, "--model", here / "video_llava", "--frames", 4), message)


def test_videos_that_cannot_be_read_are_refused(here: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("a film")
    common = (*ASK, "--model", here / "video_llava")
    refused(duet("run", tmp_path / "text.mp4", *common), "cannot be decoded (Invalid data found")
    refused(duet("run", tmp_path / "no.mp4", *common), "does not exist: give the path of a video file.")
    refused(duet("run", song(tmp_path / "song.mp4"), *common), "holds only sound: give a file with moving pictures.")


def trace_of(visual: list[int], entrance: list[int], images: list[ImageTrace]) -> Trace:
    return Trace(images, [SampleTrace(visual, [], [DropTrace(0, entrance)], [len(entrance)])])


def test_places_of_frames() -> None:
    # two frames of 4 patches with text between them; stage 1 left tokens at their places
    frames = [ImageTrace([0.0] * 4, [1], [2], [[3]]), ImageTrace([0.0] * 4, [0, 3], [], [])]
    trace = trace_of([5, 6, 7, 8, 12, 13, 14, 15], [6, 7, 12, 15], frames)
    assert patches_of(trace, 4, 0, 4) == {6: 1, 7: 2}
    assert patches_of(trace, 4, 1, 4) == {12: 0, 15: 3}


def test_places_of_frames_that_were_merged_together() -> None:
    # the same of one video: a cluster reaches into the second frame, which keeps one token
    video = ImageTrace([0.0] * 8, [1, 7], [2], [[3, 4]])
    trace = trace_of([5, 6, 7, 8, 12, 13, 14, 15], [6, 7, 15], [video])
    assert patches_of(trace, 4, 0, 4) == {6: 1, 7: 2}
    assert patches_of(trace, 4, 1, 4) == {15: 3}
    assert image_of(trace, 4, 0) == ImageTrace([0.0] * 4, [1], [2], [[3]])
    assert image_of(trace, 4, 1) == ImageTrace([0.0] * 4, [3], [], [])


def test_places_of_frames_with_cls_first() -> None:
    # stage 1 moved CLS, dominant and contextual tokens to the first places of each frame of 1 + 4
    frames = [ImageTrace([0.0] * 4, [1], [2], [[3]]), ImageTrace([0.0] * 4, [0], [3], [[]])]
    trace = trace_of(list(range(10, 20)), [10, 11, 12, 15, 16, 17], frames)
    assert patches_of(trace, 4, 0, 5) == {10: CLS, 11: 1, 12: 2}
    assert patches_of(trace, 4, 1, 5) == {15: CLS, 16: 0, 17: 3}
    untouched = trace_of(list(range(10, 20)), list(range(10, 20)), [])
    assert patches_of(untouched, 4, 1, 5) == {15: CLS, 16: 0, 17: 1, 18: 2, 19: 3}
