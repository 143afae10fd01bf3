"""Stage 1: the CLIP tower learns what each patch shows, and what it belongs to."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duet_vlm.pages.kinds import make_page
from duet_vlm.pages.vocabulary import PAGE_WORDS
from recipes.demo.targets import pixels
from recipes.pages.targets import COLUMNS, DIGITS, MOST, PATCHES, SIDE, Targets, targets

WORDS = len(PAGE_WORDS)
_SPLITS = (WORDS + 1, *[11] * DIGITS, WORDS + 1, len(COLUMNS) + 1, MOST + 1, SIDE, SIDE)


class VisionHeads(nn.Module):
    """Linear read-outs of the features that the language model will get; used in training only.

    A patch must name its word, or the digits of its number, the key that the number stands beside and what it is, how
    many entries the page has, and its own row and column.  CLS must list the words of the page, both in the pooled
    output and at the last but one layer: stage 1 ranks patches by CLS attention there.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patch = nn.Linear(width, sum(_SPLITS))
        self.pooled = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, WORDS))
        self.cls = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, WORDS))

    def forward(self, features: Tensor, pooled: Tensor, target: Targets) -> tuple[Tensor, dict[str, float]]:
        """features [B, 1 + N, D] with CLS first, pooled [B, D] -> the weighted loss, and accuracies for the log."""
        word, first, second, third, fourth, key, column, count, row, across = (
            self.patch(self.norm(features[:, 1:])).float().split(_SPLITS, -1)
        )
        numbers, texts = target.digits[..., 0] > 0, target.count > 0
        weight = torch.where(texts, 1.0, 0.15)

        def everywhere(logits: Tensor, goal: Tensor) -> Tensor:
            loss = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none")
            return (loss * weight.flatten()).sum() / weight.sum()

        index = torch.arange(PATCHES, device=word.device).expand(len(word), -1)
        read = [logits[numbers] for logits in (first, second, third, fourth)]
        goals = [target.digits[..., i][numbers] for i in range(DIGITS)]
        dense = 2 * everywhere(word, target.word) + everywhere(first, target.digits[..., 0])
        dense = dense + torch.stack([F.cross_entropy(x, y) for x, y in zip(read, goals, strict=True)]).sum()
        dense = dense + F.cross_entropy(key[numbers], target.key[numbers])
        dense = dense + 0.5 * F.cross_entropy(column[numbers], target.column[numbers])
        dense = dense + 0.3 * F.cross_entropy(count[texts], target.count[texts])
        dense = dense + 0.25 * (everywhere(row, index // SIDE) + everywhere(across, index % SIDE))
        positive = torch.tensor(6.0, device=word.device)
        listed = torch.stack(
            [F.binary_cross_entropy_with_logits(head(x).float(), target.present, pos_weight=positive)
             for head, x in ((self.pooled, pooled), (self.cls, features[:, 0]))]).sum()  # fmt: skip
        with torch.no_grad():
            shown = target.word > 0
            whole = torch.stack([x.argmax(-1) == y for x, y in zip(read, goals, strict=True)]).all(0)
            right = {
                "word": (word.argmax(-1) == target.word)[shown],
                "number": whole,
                "key": (key.argmax(-1) == target.key)[numbers],
                "column": (column.argmax(-1) == target.column)[numbers],
                "count": (count.argmax(-1) == target.count)[texts],
            }
            log = {name: value.float().mean().item() for name, value in right.items()}
        return dense + 2 * listed, {"dense": dense.item(), "cls": listed.item()} | log


def draw_pages(rng: np.random.Generator, count: int) -> tuple[Tensor, Targets]:
    """Pixels and labels of fresh pages."""
    pages = [make_page(rng) for _ in range(count)]
    return pixels([page.image for page in pages]), targets(pages)
