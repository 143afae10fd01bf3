"""The picture of what PixelPrune left out."""

from __future__ import annotations

import numpy as np
import torch
import zoo
from PIL import Image
from repeats import repeating, tokens_kept

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.pictures.frames import Shown
from duet_vlm.pictures.visualize import draw


def test_blocks_that_never_entered_are_shaded_as_what_is_gone() -> None:
    model, batch = zoo.build("qwen2_5_vl"), repeating(zoo.inputs("qwen2_5_vl", ((4, "i", 5),)))
    with duet_vlm.apply(model, DuetConfig(pixelprune=0, drops=[Drop(2, 0.5)], query="last")) as handle:
        model(**batch, logits_to_keep=1)
        trace = handle.trace
    assert trace is not None
    (grid,) = [(rows // 2, columns // 2) for _, rows, columns in batch["image_grid_thw"].tolist()]
    kept, counts = tokens_kept(batch), trace.samples[0].tokens_per_layer
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    figure = draw([Shown(photo, 0, len(kept))], trace, grid, [("why", "plain")], "title", counts)
    assert [axes.get_label() for axes in figure.axes] == ["image", "stage 1", "drop 2", "tokens"]
    whole, entering = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2])
    same = [np.array_equal(a, b) for a, b in zip(cells(entering, grid), cells(whole, grid), strict=True)]
    assert torch.equal(torch.tensor(same), kept) and counts[0] == int(kept.sum()) == 2 * counts[-1] + counts[0] % 2
    assert any(f"{counts[0]} dominant, 0 contextual" in text.get_text() for text in figure.axes[1].texts)


def cells(pixels: np.ndarray, grid: tuple[int, int]) -> list[np.ndarray]:
    return [cell for row in np.split(pixels, grid[0]) for cell in np.split(row, grid[1], axis=1)]
