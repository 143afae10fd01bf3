"""A small evaluation: a model, two pictures, nine questions, the command that asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saved import photo, save
from typer.testing import CliRunner

from duet_vlm.cli.main import app

QUESTIONS = ("what color is the star ?", "is there a red circle ?", "how many circles are there ?")


def nine_questions(folder: Path) -> Path:
    """A model, two pictures, and a manifest of nine questions; answers of a random model are odd, so all are "red"."""
    save(folder / "model")
    photo(folder / "a.png")
    photo(folder / "b.jpg", 120, 200)
    lines = []
    for number in range(9):
        lines.append({
            "id": f"q{number}", "image": ("a.png", "b.jpg")[number % 2], "question": QUESTIONS[number % 3],
            "answer": ("red", "yes", "two")[number % 3], "category": ("color", "existence", "counting")[number % 3],
            "metric": ("exact_match", "yes_no", "exact_match")[number % 3],
        })  # fmt: skip
    write(folder / "questions.jsonl", lines)
    return folder


def write(file: Path, lines: list[Any]) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def options(here: Path, out: Path, *more: Any) -> list[Any]:
    return [
        "--model", here / "model", "--data", here / "questions.jsonl", "--method", "none", "duet", "random",
        "--keep", "0.5", "0.25", "--batch-size", "4", "--max-new-tokens", "2", "--out", out, *more,
    ]  # fmt: skip
