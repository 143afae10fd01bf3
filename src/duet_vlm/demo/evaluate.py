"""Accuracy of the demonstration model per skill, on held-out scenes, in the stock single-turn format."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from duet_vlm.demo.questions import SKILLS, Question, ask
from duet_vlm.demo.scenes import Scene, make_scene
from duet_vlm.demo.vocabulary import ASSISTANT, IDS, IMAGE, USER

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

HELD_OUT_SEED = 777_001  # scenes for published numbers: never trained on, never tuned on
VALIDATION_SEED = 555_001  # scenes for decisions during development
HELD_OUT_QUESTIONS = 5000


class Skilled(Protocol):
    """A question that belongs to a skill."""

    @property
    def skill(self) -> str: ...


Drawn = TypeVar("Drawn")
Asked = TypeVar("Asked", bound=Skilled)


def scene_at(seed: int, index: int) -> tuple[Scene, list[Question]]:
    """Scene number `index` of a split, and one question of every skill that it allows."""
    rng = np.random.default_rng((seed, index))
    scene = make_scene(rng)
    return scene, [q for q in ask(rng, scene, SKILLS) if q is not None]


def examples(seed: int, questions: int) -> Iterator[tuple[Scene, list[Question]]]:
    """Scenes of a split, in order, with their questions until every skill has its equal share of `questions`."""
    yield from equal_shares(partial(scene_at, seed), SKILLS, questions)


def equal_shares(
    drawn: Callable[[int], tuple[Drawn, list[Asked]]], skills: tuple[str, ...], questions: int
) -> Iterator[tuple[Drawn, list[Asked]]]:
    """What is drawn, in order, with its questions until every skill has its equal share of `questions`.

    Earlier skills get what is left over.
    """
    left = {skill: questions // len(skills) + (i < questions % len(skills)) for i, skill in enumerate(skills)}
    index = 0
    while any(left.values()):
        picture, questions_there = drawn(index)
        wanted = [q for q in questions_there if left[q.skill]]
        for question in wanted:
            left[question.skill] -= 1
        if wanted:
            yield picture, wanted
        index += 1


def split_hash(seed: int, scenes: int = 20) -> str:
    """SHA-256 of the first scenes and questions of a split: changes when drawing or wording changes."""
    digest = hashlib.sha256()
    for index in range(scenes):
        scene, questions = scene_at(seed, index)
        digest.update(scene.image.tobytes())
        digest.update("\n".join(f"{q.text} {q.answer}" for q in questions).encode())
    return digest.hexdigest()


def demo_prompt(question: str) -> str:
    """The single-turn prompt, as the chat template writes it."""
    return f"{USER} {IMAGE}\n{question} {ASSISTANT}"


def interval(right: int, total: int) -> tuple[float, float]:
    """The 95% Wilson interval of a share."""
    z, share = 1.96, right / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def evaluate(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    questions: int = HELD_OUT_QUESTIONS,
    seed: int = HELD_OUT_SEED,
    scenes_per_batch: int = 6,
    advance: Callable[[int], None] = lambda count: None,
) -> dict:
    """Ask `questions` questions, an equal number per skill, each alone with its image; greedy, first token compared.

    Returns {"questions", "seed", "accuracy", "mean_over_skills", "skills": {skill: {"accuracy", "low", "high",
    "questions"}}} with 95% intervals.  `advance` is called with the number of questions done since the last call.
    """
    import torch

    right, total = dict.fromkeys(SKILLS, 0), dict.fromkeys(SKILLS, 0)
    for batch in _batched(examples(seed, questions), scenes_per_batch):
        pairs = [(scene, question) for scene, group in batch for question in group]
        inputs = processor(
            images=[scene.image for scene, _ in pairs], text=[demo_prompt(q.text) for _, q in pairs],
            return_tensors="pt", padding=True, padding_side="left",
        )  # fmt: skip
        inputs = inputs.to(model.device, model.dtype)
        counts = [len(group) for _, group in batch]
        with torch.inference_mode():
            # each image is encoded once for all its questions
            pictures = inputs.pop("pixel_values")[[sum(counts[:i]) for i in range(len(counts))]]
            image = model.model.get_image_features(pictures)
            image.pooler_output = [
                features for features, n in zip(image.pooler_output, counts, strict=True) for _ in range(n)
            ]
            logits = model(**inputs, mm_encoder_outputs={"image": image}, logits_to_keep=1).logits
        answers = logits[:, -1].argmax(-1).tolist()
        for (_, question), answer in zip(pairs, answers, strict=True):
            total[question.skill] += 1
            right[question.skill] += answer == IDS[question.answer]
        advance(len(pairs))
    skills = {}
    for skill in SKILLS:
        if total[skill]:
            low, high = interval(right[skill], total[skill])
            skills[skill] = {"accuracy": round(right[skill] / total[skill], 4), "low": round(low, 4),
                             "high": round(high, 4), "questions": total[skill]}  # fmt: skip
    return {
        "questions": sum(total.values()),
        "seed": seed,
        "accuracy": round(sum(right.values()) / sum(total.values()), 4),
        "mean_over_skills": round(sum(s["accuracy"] for s in skills.values()) / len(skills), 4),
        "skills": skills,
    }


def _batched(items: Iterable, size: int) -> Iterator[list]:
    batch: list = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
