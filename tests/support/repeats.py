"""Pictures whose blocks repeat their neighbours, which blocks a plain loop keeps of them, and a tower under a mask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import zoo
from torch import Tensor
from transformers import AttentionInterface
from transformers.vision_utils import get_vision_window_index

SIDE, PATCH = 2, 4  # patches of a block's side, and pixels of a patch's, in the zoo
NAME = "without what repeats"


def pictures(batch: dict[str, Any]) -> list[Tensor]:
    """(rows, columns, ...) views of the pixels of every image, then of every frame: blocks that can be written to."""
    found = []
    for pixels, sizes in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
        start = 0
        for frames, rows, columns in batch.get(sizes, torch.zeros(0, 3)).tolist():
            for _ in range(frames):
                part = batch[pixels][start : start + rows * columns]
                start += rows * columns
                found.append(blocks(part, rows, columns))
    for image, (height, width) in zip(
        batch.get("pixel_values", []), batch.get("image_sizes", torch.zeros(0)).tolist(), strict=False
    ):
        edge = SIDE * PATCH
        cut = image[:, :height, :width].unflatten(2, (-1, edge)).unflatten(1, (-1, edge))
        found.append(cut.permute(1, 3, 0, 2, 4))
    return found


def blocks(part: Tensor, rows: int, columns: int) -> Tensor:
    """Flat patches follow each other block by block; those that are squares (PaddleOCR-VL) lie row by row."""
    if part.ndim == 2:
        return part.view(rows // SIDE, columns // SIDE, SIDE * SIDE, -1)
    return part.view(rows // SIDE, SIDE, columns // SIDE, SIDE, *part.shape[1:]).transpose(1, 2)


def repeating(batch: dict[str, Any], share: float = 0.6, seed: int = 3) -> dict[str, Any]:
    """The batch with blocks that are copies of the left or the upper one; with a share of 1 all of an image are."""
    generator = torch.Generator().manual_seed(seed)
    new = {name: x.clone() if name.startswith("pixel_values") else x for name, x in batch.items()}
    for image in pictures(new):
        for row, column in places(image)[1:]:
            if torch.rand((), generator=generator) < share:
                left = column and (not row or torch.rand((), generator=generator) < 0.5)
                image[row, column] = image[row, column - 1] if left else image[row - 1, column]
    return new


def places(image: Tensor) -> list[tuple[int, int]]:
    return [(row, column) for row in range(image.shape[0]) for column in range(image.shape[1])]


def kept_of(image: Tensor, threshold: float = 0) -> Tensor:
    """(rows, columns, ...) levels -> (rows, columns) bool by the rule, one block after another."""
    kept, seen = torch.ones(image.shape[:2], dtype=torch.bool), dict[tuple[int, int], Tensor]()
    for row, column in places(image):
        own = seen[row, column] = image[row, column]
        if row == column == 0:
            continue
        if row and column:
            level = apart(seen[row - 1, column], seen[row - 1, column - 1]) <= threshold
            by = seen[row, column - 1] if level else seen[row - 1, column]
        else:
            by = seen[row, column - 1] if column else seen[row - 1, column]
        if apart(own, by) <= threshold:
            kept[row, column], seen[row, column] = False, by
    return kept


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def tokens_kept(batch: dict[str, Any]) -> Tensor:
    """(N,) bool of all visual tokens, images before videos, as encoders hand them over."""
    return torch.cat([kept_of(image).flatten() for image in pictures(batch)])


@contextlib.contextmanager
def masked(model: Any, batch: dict[str, Any]) -> Iterator[None]:
    """Inside, the stock tower sees every patch, and no patch attends to one that repeats: its key is hidden."""
    core = model.model
    tower = next(getattr(core, name) for name in ("visual", "vision_tower") if hasattr(core, name))
    alive, at = in_order(tower, batch), [0]

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **given: Any) -> Any:
        count = key.shape[2]
        here = alive[at[0] : at[0] + count]
        at[0] = (at[0] + count) % len(alive)
        logits = query @ key.mT * given["scaling"] + torch.where(here, 0.0, -1e30)
        logits = logits if attention_mask is None else logits + attention_mask
        return (logits.softmax(-1) @ value).transpose(1, 2), None

    AttentionInterface.register(NAME, attend)
    before = tower.config._attn_implementation
    tower.set_attn_implementation(NAME)
    try:
        yield
        assert at[0] == 0 and len(alive)
    finally:
        tower.set_attn_implementation(before)


def in_order(tower: Any, batch: dict[str, Any]) -> Tensor:
    """(n,) bool of the patches of one call, as the tower has them: by windows, block by block, or row by row."""
    kept, grids = (
        [kept_of(image) for image in pictures(batch)],
        batch.get("image_grid_thw", batch.get("video_grid_thw")),
    )
    if "image_sizes" in batch or batch["pixel_values" if "pixel_values" in batch else "pixel_values_videos"].ndim > 2:
        return torch.cat([one.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1).flatten() for one in kept])
    flat = torch.cat([one.flatten() for one in kept])
    if hasattr(tower, "fullatt_block_indexes"):
        flat = flat[get_vision_window_index(grids, SIDE, tower.window_size, tower.patch_size)[0]]
    return flat.repeat_interleave(SIDE * SIDE)


def encode(model: Any, batch: dict[str, Any], modality: str = "image") -> Any:
    """What the model's encoder makes of one modality of a batch."""
    names = {
        "image": ("pixel_values", "image_grid_thw", "image_sizes"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    }
    given = {name: batch[name] for name in names[modality] if name in batch}
    return getattr(model.model, f"get_{modality}_features")(**given, return_dict=True)


def only(family: str, modality: str = "image", count: int = 3, seed: int = 1) -> dict[str, Any]:
    """Images, or videos, alone, of several sizes."""
    shown = "v" if modality == "video" and zoo.has_video(family) else "i"  # GLM's videos are a family of the zoo
    row: tuple[int | str, ...] = (2, *([shown] * count))
    batch = zoo.inputs(family, (row,), seed=seed)
    return {name: x for name, x in batch.items() if name not in ("input_ids", "attention_mask")}
