"""Which text tokens ask: the query tokens of stage 2, found from the prompt's ids (docs/method.md, 2.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config.settings import Settings
from .words import salient_tokens

IGNORED = -100  # the label of what is no answer


def query_places(
    config: Settings, tokenizer: Any, ids: Tensor, visual: Tensor, valid: Tensor, labels: Tensor | None
) -> Tensor:
    """Find every row's query tokens: (B, q) long places, -1 for holes. A row without an image has none.

    Args:
        ids: (B, S) the prompt.
        visual: (B, S) bool, its visual tokens.
        valid: (B, S) bool, False at padding.
        labels: (B, S) or None; what is labelled is an answer and never a query. With several turns, every question
            up to the last answer asks; what follows the last answer does not, as nothing is learnt from it.
    """
    rows = []
    # one transfer: the words are found on the host
    for row_ids, row_visual, row_text, row_labels in zip(
        ids.tolist(),
        visual.tolist(),
        (valid & ~visual).tolist(),
        [None] * len(ids) if labels is None else labels.tolist(),
        strict=True,
    ):
        rows.append(_row(config, tokenizer, row_ids, row_visual, row_text, row_labels))
    width = max(1, *(len(row) for row in rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows], device=ids.device)


def has_answer(labels: Tensor) -> Tensor:
    """Tell which rows of labels (B, S) have an answer: (B, 1) bool. A row without one loses no token in stage 2."""
    return (labels != IGNORED).any(1, keepdim=True)


def _row(
    config: Settings,
    tokenizer: Any,
    ids: list[int],
    visual: list[bool],
    text: list[bool],
    labels: list[int] | None,
) -> list[int]:
    if not any(visual):
        return []
    image_start = visual.index(True)
    asking = [i for i in range(image_start, len(ids)) if text[i]]
    if labels is not None:
        asking = [i for i in asking if labels[i] == IGNORED]
        answered = max((i for i, label in enumerate(labels) if label != IGNORED), default=len(ids))
        asking = [i for i in asking if i < answered] or asking
    if not asking:  # the prompt ends with its image
        return [max(i for i in range(len(ids)) if text[i] or visual[i])]
    if config.query == "all":
        return asking
    if config.query == "last":
        return asking[-1:]
    # every run of visual tokens is shown as one, so that the words around it stay apart
    readable = [
        i for i in range(image_start, len(ids)) if text[i] or (visual[i] and (i == image_start or not visual[i - 1]))
    ]
    flags = salient_tokens([ids[i] for i in readable], tokenizer, config.language)
    salient = {i for i, flag in zip(readable, flags, strict=True) if flag and text[i]}
    return sorted((salient & set(asking)) | {asking[-1]})
