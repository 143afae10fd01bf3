"""What the check of training data calls good becomes a batch, of the length it said; what it calls broken would not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saved_video
from clips import clip, song
from PIL import Image
from saved import photo, processor
from train_data import llava

from duet_vlm.errors import DuetError
from duet_vlm.inputs.checkpoints import read_processor
from duet_vlm.stage2.queries import IGNORED
from duet_vlm.training.checking import Checker
from duet_vlm.training.conversations import Renderer
from duet_vlm.training.dataset import Collator, Conversations
from duet_vlm.training.records import RawRecord, conversation


def pictures(folder: Path) -> list[str]:
    whole = photo(folder / "good.png").read_bytes()
    jpeg = photo(folder / "good.jpg", 300, 100).read_bytes()
    tags = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
    tags += struct.pack("<HHI", 0x0112, 3, 1) + b"\x06\0\0\0" + struct.pack("<HHI", 0x011A, 7, 1) + b"abcd" + bytes(4)
    Image.open(folder / "good.jpg").save(folder / "turned.jpg", exif=b"Exif\0\0" + tags)
    Image.fromarray(np.full((20, 30), 999, np.uint16)).save(folder / "deep.tiff")
    Image.new("RGBA", (30, 20), (1, 2, 3, 0)).save(folder / "clear.webp")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (3, 40)).save(folder / "narrow.png")
    Image.new("RGB", (2500, 4)).save(folder / "line.png")
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "half.jpg").write_bytes(jpeg[: len(jpeg) * 3 // 4])
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    (folder / "folder.png").mkdir()
    files = sorted(file.name for file in folder.iterdir())
    return [*files, "none.png", "x" * 999 + ".png", "~nobody-of-this-name/a.png"]


def both(made: Any, folder: Path, record: dict[str, Any], max_length: int | None = None) -> tuple[str | None, bool]:
    """Why the check refuses a record, if it does; and whether training could read it and make a batch of it."""
    renderer = Renderer(made)
    length, reason = Checker(renderer, folder, max_length, 4)(RawRecord("file", 0, record))
    try:
        row = Conversations([conversation(record, folder)], renderer, 4)[0]
        batch = Collator(made, max_length)([row])
        trains = bool((batch["labels"] != IGNORED).any())
    except ValueError:
        trains = False
    if reason is None and trains:
        assert length == batch["input_ids"].shape[1]
    return reason, trains


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl"])
def test_the_check_and_training_agree_on_every_picture(tmp_path: Path, family: str) -> None:
    (tmp_path / "images").mkdir()
    names = pictures(tmp_path / "images")
    if family == "qwen2_5_vl":
        made = read_processor(str(saved_video.save(tmp_path / "model", family)))
    else:
        made = processor(family)
    outcomes = {}
    for name in names:
        reason, trains = both(made, tmp_path / "images", llava(1, name))
        assert (reason is None) == trains, (name, reason)
        outcomes[name] = trains
    assert all(outcomes[name] for name in ("turned.jpg", "deep.tiff", "clear.webp", "good.png"))
    assert not any(outcomes[name] for name in ("half.png", "half.jpg", "text.png", "folder.png", "none.png"))
    assert outcomes["line.png"] == (family != "qwen2_5_vl")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "video_llava"])
@pytest.mark.parametrize("max_length", [None, 12])
def test_the_check_and_training_agree_on_every_video(tmp_path: Path, family: str, max_length: int | None) -> None:
    made = read_processor(str(saved_video.save(tmp_path / "model", family)))
    whole = clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    song(tmp_path / "song.mp4")
    clip(tmp_path / "none.mkv", 0)
    clip(tmp_path / "one.mp4", 1)
    cut = clip(tmp_path / "cut.avi", 20).read_bytes()
    (tmp_path / "cut.avi").write_bytes(cut[: len(cut) * 3 // 4])
    good = set()
    for name in ("whole.mp4", "half.mp4", "song.mp4", "none.mkv", "one.mp4", "cut.avi", "missing.mp4"):
        asked = {"role": "user", "content": "<video>\nwhat happens here ?"}
        record = {"messages": [asked, {"role": "assistant", "content": "red square"}], "video": name}
        reason, trains = both(made, tmp_path, record, max_length)
        assert (reason is None) == trains, (name, reason)
        good |= {name} if trains else set()
    assert good == (set() if max_length else {"whole.mp4", "one.mp4", "cut.avi"})


def test_a_turned_picture_has_the_length_of_what_is_seen(tmp_path: Path) -> None:
    made = processor("llava_next")
    for name, orientation in (("wide", 1), ("tall", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (600, 150)).save(tmp_path / f"{name}.jpg", exif=exif)
    seen = Checker(Renderer(made), tmp_path, None, 4)
    assert seen.probe(tmp_path / "wide.jpg") == (150, 600) and seen.probe(tmp_path / "tall.jpg") == (600, 150)


@pytest.mark.parametrize("empty", ["", "  \n", [{"type": "text", "text": " "}], []])
def test_an_empty_answer_is_found_in_any_turn(empty: Any) -> None:
    said = ["why ?", "so", "why ?", empty, "why ?", "no"]
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(said)]
    record = {"messages": turns}
    with pytest.raises(DuetError, match="its answer in turn 3 is empty"):
        conversation(record, None)


def test_a_place_of_another_kind_in_a_text_is_found(tmp_path: Path) -> None:
    made = read_processor(str(saved_video.save(tmp_path / "model", "qwen2_5_vl")))
    for token, kind in (("<|image_pad|>", "image"), ("<|video_pad|>", "video")):
        record = {"messages": [{"role": "user", "content": f"what {token} ?"}, {"role": "assistant", "content": "red"}]}
        reason, trains = both(made, tmp_path, record)
        assert not trains and reason == f"its text holds 1 {kind} tokens for 0 {kind}s"


def test_a_mistake_of_ours_is_no_broken_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, messages: Any) -> Any:
        raise KeyError("a bug")

    checker = Checker(Renderer(processor()), tmp_path, None, 4)
    monkeypatch.setattr(Renderer, "__call__", broken)
    with pytest.raises(KeyError, match="a bug"):
        checker(RawRecord("file", 0, llava(1, None)))
