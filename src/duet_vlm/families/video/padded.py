"""Gemma 4's frames: resized to fit a budget of visual tokens, cut into patches, padded to the budget."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import pixels
from .processors import BICUBIC, FrameProcessor


class Gemma4VideoProcessor(FrameProcessor):
    """Patches of (T, budget, values) and their positions (T, budget, 2) as (x, y), -1 where they are padding."""

    published: ClassVar[dict[str, Any]] = dict(
        resample=BICUBIC, image_mean=[0.0, 0.0, 0.0], image_std=[1.0, 1.0, 1.0], size=None, num_frames=32,
        patch_size=16, max_soft_tokens=70, pooling_kernel_size=3,
    )  # fmt: skip
    model_input_names = ["pixel_values_videos", "video_position_ids", "num_frames_per_video"]  # noqa: RUF012

    @property
    def at_once(self) -> int:
        """Rows, and columns, of patches that are handed over as one."""
        return 1

    def joined(self, name: str, tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors)

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

        side, budget = int(self.pooling_kernel_size), int(self.max_soft_tokens)
        if self.do_resize:
            height, width = frames.shape[-2:]
            height, width = get_aspect_ratio_preserving_size(height, width, self.patch_size, budget * side**2, side)
            frames = pixels.resize(frames, height, width, self.resample)
        edge, most = self.patch_size * self.at_once, budget * (side // self.at_once) ** 2
        flat = self.normalized(frames).unflatten(3, (-1, edge)).unflatten(2, (-1, edge))  # (T, 3, rows, y, columns, x)
        rows, columns = flat.shape[2], flat.shape[4]
        flat = flat.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
        places, left = torch.stack([x, y], -1).flatten(0, 1).repeat(len(frames), 1, 1), max(0, most - rows * columns)
        return {
            "pixel_values_videos": pad(flat, (0, 0, 0, left)),
            "video_position_ids": pad(places, (0, 0, 0, left), value=-1),
            "num_frames_per_video": torch.tensor([len(frames)]),
            "num_soft_tokens_per_video": torch.tensor([rows * columns * self.at_once**2 // side**2]),
        }


class Gemma4UnifiedVideoProcessor(Gemma4VideoProcessor):
    """The patches of one visual token are handed over as one."""

    @property
    def at_once(self) -> int:
        return int(self.pooling_kernel_size)
