"""The built-in benchmark: held-out scenes of the demonstration model, 5,000 questions, an equal number per skill."""

from __future__ import annotations

import hashlib
from collections import Counter

from PIL import Image

from ..demo.evaluate import HELD_OUT_QUESTIONS, HELD_OUT_SEED, examples
from ..demo.questions import SKILLS
from ..errors import DuetError
from .records import Record

# SHA-256 of all scenes' pixels, questions and answers; `make_records` refuses to ask anything else
HASH = "c7592510c3514a3f6580a32f5ad9544321e05785efdf2daef0b40af7c03bee7b"


def make_records(limit: int | None = None) -> list[Record]:
    """The benchmark's records, or the first `limit` of them that give every skill its equal share.

    All scenes are drawn and compared with `HASH` first, about a second.

    Raises:
        ValueError: what is drawn here is not the published benchmark, or a limit beyond it.
    """
    if limit is not None and not len(SKILLS) <= limit <= HELD_OUT_QUESTIONS:
        raise DuetError(f"limit {limit} must be {len(SKILLS)}, a question per skill, to {HELD_OUT_QUESTIONS}.")
    digest = hashlib.sha256()
    records = []
    for number, (scene, questions) in enumerate(examples(HELD_OUT_SEED, HELD_OUT_QUESTIONS)):
        digest.update(scene.image.tobytes())
        image = Image.fromarray(scene.image)
        for question in questions:
            digest.update(f"{question.skill}\t{question.text}\t{question.answer}\n".encode())
            source = f"{number:03d}"
            name = f"{source}-{question.skill}"
            records.append(Record(name, question.text, (question.answer,), image, None, source, question.skill))
    drawn = digest.hexdigest()
    if drawn != HASH:
        raise DuetError(
            f"the scenes drawn here are not the published benchmark (SHA-256 {drawn[:12]}, not {HASH[:12]}): "
            "use the versions of numpy and Pillow in constraints.txt."
        )
    return records if limit is None else first_of_each(records, limit)


def first_of_each(records: list[Record], limit: int) -> list[Record]:
    """The first `limit` records, in order, in which every category has an equal share (earlier skills get the rest)."""
    share = Counter({skill: limit // len(SKILLS) + (i < limit % len(SKILLS)) for i, skill in enumerate(SKILLS)})
    chosen = []
    for record in records:
        if share[record.category]:
            share[record.category] -= 1
            chosen.append(record)
    return chosen
