"""Texts that would be taken for an image's place, and the one form in which that is meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..config.arguments import tokenizer_of
from ..errors import DuetError
from . import visual_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

PLACE = r"<(image|video)>"
LEADING, TRAILING = re.compile(rf"\s*{PLACE}\s*"), re.compile(rf"\s*\n\s*{PLACE}\s*$")


def without_place(question: str, kind: str) -> str:
    """A question without the place that LLaVA's format writes, "<image>\\nWhat is this?"; the image comes first anyway.

    Args:
        kind: "image" or "video"; the place of the other kind stays.
    """
    for place in (LEADING.match(question), TRAILING.search(question)):
        if place and place[1] == kind:
            return question[: place.start()] + question[place.end() :]
    return question


def check_text(text: str, processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Look for the tokens that stand for pictures and videos in a model's prompt.

    Raises:
        DuetError: one is there, and the model would look for its picture.
    """
    tokenizer = tokenizer_of(processor)
    tokens = [getattr(processor, f"{kind}_token", None) for kind in ("image", "video")]
    tokens += tokenizer.convert_ids_to_tokens(list(visual_token_ids(config).values()))
    for token in filter(None, tokens):
        if token in text:
            raise DuetError(
                f"the text {_short(text)!r} holds {token!r}, which this model takes for the place of a picture: leave "
                "it out or write it otherwise."
            )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
