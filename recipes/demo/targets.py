"""Scenes as tensors: pixels and the labels of the auxiliary losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duet_vlm.demo.scenes import COLORS, GRID, IMAGE_SIZE, MAX_SIZE, MIN_SIZE, PatchLabels, Scene, patch_labels
from duet_vlm.demo.vocabulary import PIXEL_MEAN, PIXEL_STD

CLS_LABELS = 64 + 10  # shape-colour pairs, digits


@dataclass(frozen=True)
class Targets:
    """Labels of B scenes over N = 196 patches.

    `shape`, `color` [B, N]: class + 1, 0 for no object.  `digit` [B, N]: digit + 1, 0 for none shown.  `center` [B, N]:
    1.0 where an object's centre lies.  `place` [B, N, 3]: the owner's centre x, y and size, each scaled to 0..1.
    `background` [B].  `present` [B, 74]: which shape-colour pairs and digits the scene holds.
    """

    shape: Tensor
    color: Tensor
    digit: Tensor
    center: Tensor
    place: Tensor
    background: Tensor
    present: Tensor


def moved(value: Any, device: str) -> Any:
    """A dataclass of tensors (nested, or in tuples) on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: moved(getattr(value, f.name), device) for f in fields(value)})
    return tuple(moved(v, device) for v in value) if isinstance(value, tuple) else value


def pixels(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 images [112, 112, 3] -> normalised float32 [B, 3, 112, 112], as the shipped image processor makes them."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (batch - torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1)) / torch.tensor(PIXEL_STD).view(1, 3, 1, 1)


def object_places(scene: Scene) -> np.ndarray:
    """[objects, 3]: centre x, y and size of each object, each scaled to 0..1."""
    return np.array(
        [(*(c / IMAGE_SIZE for c in o.center), (o.size - MIN_SIZE) / (MAX_SIZE - MIN_SIZE)) for o in scene.objects],
        np.float32,
    )


def targets(scenes: Sequence[Scene], labels: Sequence[PatchLabels] | None = None) -> Targets:
    """The labels of the scenes (`labels` when they are known already)."""
    labels = labels or [patch_labels(s) for s in scenes]
    shape, color, place = (np.zeros((len(scenes), GRID * GRID, *tail)) for tail in ((), (), (3,)))
    present = np.zeros((len(scenes), CLS_LABELS), np.float32)
    for b, (scene, label) in enumerate(zip(scenes, labels, strict=True)):
        own = label.owner >= 0
        at = label.owner[own]
        shape[b, own] = np.array([o.shape for o in scene.objects])[at] + 1
        color[b, own] = np.array([o.color for o in scene.objects])[at] + 1
        place[b, own] = object_places(scene)[at]
        for o in scene.objects:
            present[b, o.shape * len(COLORS) + o.color] = 1
            if o.digit is not None:
                present[b, 64 + o.digit] = 1
    return Targets(
        torch.from_numpy(shape).long(),
        torch.from_numpy(color).long(),
        torch.from_numpy(np.stack([label.digit for label in labels])).long() + 1,
        torch.from_numpy(np.stack([label.center for label in labels]) >= 0).float(),
        torch.from_numpy(place).float(),
        torch.tensor([s.background for s in scenes]),
        torch.from_numpy(present),
    )
