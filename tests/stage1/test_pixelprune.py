"""PixelPrune's choice of blocks beside a plain loop, and a reader who has only what was kept."""

from __future__ import annotations

import pytest
import torch
from repeats import apart, kept_of, places
from torch import Tensor

from duet_vlm.stage1.pixelprune import pixelprune

STD = torch.tensor([0.27, 0.5, 0.3])
MEAN = torch.tensor([0.48, 0.5, 0.4])


def picture(rows: int, columns: int, levels: int, seed: int) -> Tensor:
    """(rows, columns, 4 patches, 3 channels, 5 values) whole levels, of which blocks have one or two."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randint(levels, (rows, columns, 1, 1, 1), generator=generator)
    speck = torch.rand(rows, columns, 4, 3, 5, generator=generator) < 0.01
    return (flat + speck + 100).float()


def normalised(levels: Tensor) -> Tensor:
    return (levels / 255 - MEAN[:, None]) / STD[:, None]


CASES = [
    (rows, columns, seed) for seed, (rows, columns) in enumerate([(1, 1), (1, 7), (6, 1), (5, 8), (9, 4), (12, 12)])
]


@pytest.mark.parametrize(("rows", "columns", "seed"), CASES)
@pytest.mark.parametrize("threshold", [0, 1, 2, 7])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_blocks_are_those_of_the_loop(rows: int, columns: int, seed: int, threshold: int, levels: int) -> None:
    image = picture(rows, columns, levels, seed)
    kept = pixelprune(normalised(image), threshold, 255 * STD)
    assert torch.equal(kept, kept_of(image, threshold)) and bool(kept[0, 0])
    nearest = min((apart(image[a], image[b]) for a in places(image) for b in places(image) if a < b), default=1)
    if nearest > threshold:
        assert bool(kept.all())


@pytest.mark.parametrize("threshold", [0, 2])
def test_who_has_the_kept_blocks_has_the_picture_within_the_threshold(threshold: int) -> None:
    """Also of colours that run: 40 levels from one side to the other, one at a step."""
    running = torch.arange(40.0).expand(6, 40)[..., None, None, None].expand(6, 40, 4, 3, 5).clone()
    for image in (running, picture(9, 7, 3, seed=5)):
        kept = pixelprune(normalised(image), threshold, 255 * STD)
        read: dict[tuple[int, int], Tensor] = {}
        for row, column in places(image):  # the walk again, from what was kept alone
            if bool(kept[row, column]):
                read[row, column] = image[row, column]
            elif column and (not row or apart(read[row - 1, column], read[row - 1, column - 1]) <= threshold):
                read[row, column] = read[row, column - 1]
            else:
                read[row, column] = read[row - 1, column]
        assert all(apart(read[place], image[place]) <= threshold for place in places(image))
        assert 0 < int(kept.sum()) < kept.numel() or (threshold == 0 and image is running)


def test_copies_in_half_precision_are_copies() -> None:
    image = picture(8, 8, 2, seed=1)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(pixelprune(normalised(image).to(dtype), 0, 255 * STD), kept_of(image))
