"""The demonstration benchmark for lmms-eval: 5,000 questions about held-out drawn scenes, nothing to download."""

from __future__ import annotations

from functools import cache
from typing import Any

from datasets import Dataset
from PIL import Image

from duet_vlm.demo.evaluate import examples
from duet_vlm.demo.questions import Question
from duet_vlm.demo.scenes import Scene


def questions(benchmark: Dataset) -> Dataset:
    """One document a question, in the benchmark's order, from the one record that names seed and size."""
    seed, count = benchmark[0]["seed"], benchmark[0]["questions"]
    return Dataset.from_list(
        [
            {"id": f"{index}-{q.skill}", "seed": seed, "questions": count, "scene": index, "skill": q.skill,
             "question": q.text, "answer": q.answer}
            for index, (_, asked) in enumerate(_scenes(seed, count)) for q in asked
        ]
    )  # fmt: skip


def scene(document: dict[str, Any]) -> list[Image.Image]:
    """The picture that the question is about, drawn anew."""
    return [Image.fromarray(_scenes(document["seed"], document["questions"])[document["scene"]][0].image)]


def score(document: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Exact match, as everything about the demonstration model is counted."""
    return {"exact_match": float(answers[0].strip().lower() == document["answer"])}


@cache
def _scenes(seed: int, count: int) -> list[tuple[Scene, list[Question]]]:
    return list(examples(seed, count))
