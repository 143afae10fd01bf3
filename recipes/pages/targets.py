"""Pages as tensors: what each patch shows, and what it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from duet_vlm.demo.scenes import PATCH_SIZE
from duet_vlm.pages.paper import PAGE_SIZE, Box, Page
from duet_vlm.pages.vocabulary import PAGE_WORDS
from duet_vlm.pages.words import HEADS, TOTAL

SIDE = PAGE_SIZE // PATCH_SIZE
PATCHES = SIDE * SIDE
COLUMNS = (*HEADS, "number", "value")
WORD = {word: i + 1 for i, word in enumerate(PAGE_WORDS)}
COLUMN = {word: i + 1 for i, word in enumerate(COLUMNS)}
MOST = 9  # entries of a page
DIGITS = 4  # of a total
SHARE = 18  # pixels of a text's box that a patch must hold to show it, of 64


@dataclass(frozen=True)
class Targets:
    """Labels of B pages over N = 400 patches; 0 is none everywhere.

    `word` [B, N]: the word that a patch shows a part of.  `digits` [B, N, 4]: the digits of the number that it shows a
    part of, from the left.  `key` [B, N]: the key in whose entry a number stands.  `column` [B, N]: what the number is.
    `count` [B, N]: how many entries the page has, where it shows text.  `present` [B, words]: the words of the page.
    """

    word: Tensor
    digits: Tensor
    key: Tensor
    column: Tensor
    count: Tensor
    present: Tensor


def covered(box: Box) -> np.ndarray:
    """bool [400]: the patches that show enough of what stands in a box."""
    left, top, right, bottom = box
    edges = np.arange(SIDE) * PATCH_SIZE
    across = np.clip(np.minimum(right, edges + PATCH_SIZE) - np.maximum(left, edges), 0, None)
    down = np.clip(np.minimum(bottom, edges + PATCH_SIZE) - np.maximum(top, edges), 0, None)
    there: np.ndarray = (down[:, None] * across[None]).reshape(-1) >= SHARE
    return there


def entries(page: Page) -> int:
    """How many things a question may count on a page."""
    return sum(entry.key != TOTAL for entry in page.entries)


def targets(pages: Sequence[Page]) -> Targets:
    """The labels of the pages."""
    shape = (len(pages), PATCHES)
    word, key, column, count = (np.zeros(shape, np.int64) for _ in range(4))
    digits = np.zeros((*shape, DIGITS), np.int64)
    present = np.zeros((len(pages), len(PAGE_WORDS)), np.float32)
    for b, page in enumerate(pages):
        for text, box in page.texts:
            there = covered(box)
            count[b, there] = entries(page)
            if text.isdigit():
                digits[b, there] = [int(digit) + 1 for digit in text] + [0] * (DIGITS - len(text))
            else:
                word[b, there] = WORD[text]
                present[b, WORD[text] - 1] = 1
        for entry in page.entries:
            for head, box in zip(page.heads, entry.value_boxes, strict=True):
                there = covered(box)
                key[b, there], column[b, there] = WORD[entry.key], COLUMN[head]
    return Targets(*(torch.from_numpy(array) for array in (word, digits, key, column, count, present)))
