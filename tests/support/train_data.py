"""Little data sets, settings and runs for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from saved import photo, processor, save

from duet_vlm.training.command import TrainingRun, prepare_training
from duet_vlm.training.fields import read
from duet_vlm.training.settings import TrainSettings

WORDS = ("red", "blue", "circle", "star", "yes", "no", "two", "green")


def silent(total: int) -> Any:
    import contextlib

    return contextlib.nullcontext(lambda done: None)


def llava(turns: int = 1, image: str | None = "a.png", seed: int = 0) -> dict[str, Any]:
    """A record in the format of LLaVA; questions and answers differ in length with `seed`."""
    conversations = []
    for turn in range(turns):
        things = " ".join(WORDS[(seed + turn + i) % 8] for i in range(1 + (seed * 5) % 11))
        question = f"what color is the {things} ?"
        tag = "<image>\n" if image and not turn else ""
        conversations.append({"from": "human", "value": tag + question})
        conversations.append({"from": "gpt", "value": " ".join(WORDS[(seed + i) % 8] for i in range(1 + seed % 3))})
    record: dict[str, Any] = {"id": seed, "conversations": conversations}
    return record if image is None else record | {"image": image}


def data_set(folder: Path, count: int = 10) -> Path:
    """Pictures, and conversations of one to three turns; every fifth is text alone."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, size in (("a.png", (200, 160)), ("b.png", (90, 120))):
        photo(folder / "images" / name, *size)
    records = [llava(1 + i % 3, None if i % 5 == 4 else "ab"[i % 2] + ".png", i) for i in range(count)]
    file = folder / "data.json"
    file.write_text(json.dumps(records))
    return file


def plain(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a short run on a tiny model; `changes` replace or add."""
    if not (folder / "model").exists():
        save(folder / "model")
    if not (folder / "data.json").exists():
        data_set(folder)
    return {
        "model": str(folder / "model"), "data": str(folder / "data.json"), "image_folder": str(folder / "images"),
        "output": str(folder / "out"), "compression": {"method": "duet", "keep": 0.33}, "train": "full",
        "batch_size": 2, "steps": 4, "learning_rate": 1e-3, "bf16": False, "gradient_checkpointing": False,
        "save": {"every": 2, "keep": 9}, "log_every": 1, "report": "none", "workers": 0,
        "trainer": {"use_cpu": True, "disable_tqdm": True},
    } | changes  # fmt: skip


def written(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def run_of(settings: dict[str, Any], resume: bool = False, skip_broken: bool = False) -> TrainingRun:
    return prepare_training(read(TrainSettings, settings), resume, skip_broken, silent)


__all__ = ["Image", "data_set", "llava", "plain", "processor", "run_of", "silent", "written"]
