"""Qwen2.5-VL and Qwen2-VL: images and video of any resolution, merged behind the 2 x 2 merger, a frame at a time.

METHOD: "Stage 1", 1, 5 and 7. The scoring layer is the last block that attends across a whole frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..errors import DuetError
from ..merging import Encoded
from .family import Family, refuse_renumbering
from .received import Tap, encoding, merged_in_place


def scoring_block(config: Any) -> int:
    """The tower's last block with full attention; all have it where the config names none."""
    full = getattr(config.vision_config, "fullatt_block_indexes", None)
    return int(max(full) if full else config.vision_config.depth - 1)


def attention(core: Any) -> Any:
    return core.visual.blocks[scoring_block(core.config)].attn


def tower(core: Any) -> Any:
    return core.visual


def pool(core: Any, x: Tensor) -> Tensor:
    """(B, patches, C) -> (B, patches / 4, C): the four patches of a merged token follow each other."""
    return x.unflatten(1, (-1, core.config.vision_config.spatial_merge_size**2)).mean(2)


class Stage1:
    """Retained tokens stay at their places in the frame; zeros elsewhere."""

    def __init__(self, core: Any, config: DuetConfig):
        self.core, self.config = core, config

    def hook(self) -> list[RemovableHandle]:
        return [
            *Tap(self.core, tower, attention, pool).hook(),
            self.core.visual.register_forward_hook(self.after_tower),
        ]

    def after_tower(self, visual: Any, args: Any, output: Any) -> Any:
        found, side = encoding(), visual.config.spatial_merge_size
        grids = found.given["grid_thw"].tolist()
        scores, keys = torch.cat(found.scores, 1)[0], torch.cat(found.keys, 1)[0]
        order = image_order(visual, found.given["grid_thw"])
        if order is not None:
            scores, keys = scores[order], keys[order]
        features, start, kept, merges = output.pooler_output, 0, [], []
        for frames, rows, columns in grids:
            shape = int(rows) // side, int(columns) // side
            for _ in range(int(frames)):
                part = slice(start, start + shape[0] * shape[1])
                encoded = Encoded(scores[None, part], keys[None, part], features[None, part], shape)
                tokens, decided = merged_in_place(self.config, encoded)
                kept.append(tokens[0])
                merges.append(decided)
                start = part.stop
        output.pooler_output, output.duet_merges = torch.cat(kept), merges
        return output


def image_order(visual: Any, grid_thw: Tensor) -> Tensor | None:
    """(n,) where each merged token, in raster order, stands among the tower's windows; None where it has none."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    from transformers.vision_utils import get_vision_window_index

    window_index, _ = get_vision_window_index(
        grid_thw, visual.spatial_merge_size, visual.window_size, visual.patch_size
    )
    return torch.argsort(window_index).to(grid_thw.device)


class Qwen25VL(Family):
    positions = "keep"
    dynamic = True
    late = (0.5, 0.25)

    def tokens_of_grid(self, config: Any, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        tokens: int = frames * rows * columns // config.vision_config.spatial_merge_size**2
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def check(self, config: Any, duet: DuetConfig) -> None:
        refuse_renumbering(config, duet, "its positions have three axes")

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[RemovableHandle]:
        return Stage1(core, duet).hook()
