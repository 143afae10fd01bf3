"""Stage 1: the CLIP tower learns what each patch shows, where it is, and (in CLS) what the scene holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duet_vlm.demo.scenes import BACKGROUNDS, COLORS, DIGITS, GRID, SHAPES, make_scene
from recipes.demo import attention
from recipes.demo.distributed import Workers
from recipes.demo.loop import Stage, generator, train
from recipes.demo.targets import CLS_LABELS, Targets, moved, pixels, targets

_SPLITS = (len(SHAPES) + 1, len(COLORS) + 1, len(DIGITS) + 1, 1, 3, GRID, GRID, len(BACKGROUNDS))


class VisionHeads(nn.Module):
    """Linear read-outs of the features that the language model will get; used in training only.

    The patch features (output of the last but one layer) must name shape, colour, digit, object centre, the object's
    place and size, their own row and column, and the background.  CLS must list the shape-colour pairs and digits of
    the scene, both in the pooled output and at the last but one layer: stage 1 ranks patches by CLS attention there.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patch = nn.Linear(width, sum(_SPLITS))
        self.pooled = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLS_LABELS))
        self.cls = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLS_LABELS))

    def forward(self, features: Tensor, pooled: Tensor, target: Targets) -> tuple[Tensor, dict[str, float]]:
        """features [B, 1 + N, D] with CLS first, pooled [B, D] -> the weighted loss, and accuracies for the log."""
        shape, color, digit, center, place, row, column, background = (
            self.patch(self.norm(features[:, 1:])).float().split(_SPLITS, -1)
        )
        owned, shown = target.shape > 0, target.digit > 0
        weight = torch.where(owned, 1.0, 0.25)

        def entropy(logits: Tensor, goal: Tensor) -> Tensor:
            loss = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none")
            return (loss * weight.flatten()).sum() / weight.sum()

        index = torch.arange(GRID * GRID, device=shape.device).expand(len(shape), -1)
        dense = entropy(shape, target.shape) + entropy(color, target.color) + entropy(digit, target.digit)
        dense = dense + F.binary_cross_entropy_with_logits(center[..., 0], target.center)
        dense = dense + 20 * F.mse_loss(place[owned], target.place[owned])
        dense = dense + 0.25 * (entropy(row, index // GRID) + entropy(column, index % GRID))
        scene = F.cross_entropy(background.mean(1), target.background)
        positive = torch.tensor(6.0, device=shape.device)
        listed = sum(
            (F.binary_cross_entropy_with_logits(head(x).float(), target.present, pos_weight=positive)
             for head, x in ((self.pooled, pooled), (self.cls, features[:, 0]))), torch.zeros(()))  # fmt: skip
        with torch.no_grad():
            numbers = {
                "dense": dense.item(),
                "cls": listed.item(),
                "shape": (shape.argmax(-1) == target.shape)[owned].float().mean().item(),
                "color": (color.argmax(-1) == target.color)[owned].float().mean().item(),
                "digit": (digit.argmax(-1) == target.digit)[shown].float().mean().item(),
                "center": ((center[..., 0] > 0) == (target.center > 0))[owned].float().mean().item(),
                "place": (place[owned] - target.place[owned]).abs().mean().item(),
                "background": (background.mean(1).argmax(-1) == target.background).float().mean().item(),
            }
        return dense + 2 * listed + 0.3 * scene, numbers


@torch.no_grad()
def init_positions(tower: Any, side: int = GRID, rms: float = 0.5) -> None:
    """Add a 2D sin-cos table to CLIP's position embeddings: at the stock scale (0.02) positions never grow.

    `side`: how many patches an image is high and wide.
    """
    weight = tower.embeddings.position_embedding.weight
    quarter = weight.shape[1] // 4
    frequency = 1 / 50 ** (torch.arange(quarter) / quarter)
    angles = torch.arange(side).float()[:, None] * frequency
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    table = torch.cat([axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)], -1)
    weight[1:] += table.reshape(side * side, -1) * rms * 2**0.5


def draw_scenes(rng: np.random.Generator, count: int) -> tuple[Tensor, Targets]:
    """Pixels and labels of fresh scenes."""
    scenes = [make_scene(rng) for _ in range(count)]
    return pixels([s.image for s in scenes]), targets(scenes)


def train_vision(
    tower: Any,
    heads: nn.Module,
    draw: Callable[[np.random.Generator, int], tuple[Tensor, Any]],
    stage: Stage,
    images_per_step: int,
    folder: Path,
    workers: Workers,
    resume: bool,
    report: Callable[[Stage, int, str | None], None],
) -> None:
    """Train tower and heads on fresh images, `images_per_step` over all workers together.

    `draw(rng, count)`: pixels [count, 3, H, W] and the labels that `heads` takes.
    """
    attention.register()
    tower.set_attn_implementation(attention.NAME)

    def losses(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = draw(generator(stage, step, workers), images_per_step // workers.count)
        images, labels = moved(drawn, workers.device)
        with torch.autocast(workers.device, dtype=torch.bfloat16):
            out = tower(pixel_values=images, output_hidden_states=True)
            read: tuple[Tensor, dict[str, float]] = heads(out.hidden_states[-2], out.pooler_output, labels)
        return read

    modules = nn.ModuleDict({"tower": tower, "heads": heads})
    train(stage, modules, [list(modules.parameters())], losses, folder, workers, resume, report)
