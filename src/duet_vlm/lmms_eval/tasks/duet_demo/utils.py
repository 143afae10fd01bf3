"""The demonstration benchmark for lmms-eval: 5,000 questions about held-out drawn scenes, nothing to download."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from PIL import Image

from duet_vlm.evaluation.metrics import score as score_answer
from duet_vlm.lmms_eval.tasks.duet_demo.drawn import records


def questions(_: Dataset) -> Dataset:
    """One document a question, with the ids and in the order of `duet eval --data demo`."""
    return Dataset.from_list(
        [
            {"id": record.id, "skill": record.category, "question": record.question, "answer": record.expected[0]}
            for record in records().values()
        ]
    )


def scene(document: dict[str, Any]) -> list[Image.Image]:
    """The picture that the question is about."""
    return [records()[document["id"]].image()]


def score(document: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Exact match, as `duet eval` counts it."""
    return {"exact_match": score_answer("exact_match", answers[0], [document["answer"]])}
