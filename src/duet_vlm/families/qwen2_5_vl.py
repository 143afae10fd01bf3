"""Qwen2.5-VL and Qwen2-VL: images and video of any resolution, merged behind the 2 x 2 merger, a frame at a time.

METHOD: "Stage 1", 1, 5 and 7. The scoring layer is the last block that attends across a whole frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from ..stage1 import Encoded, merge
from .encoding import Call, Stage1, merged_in_place
from .family import Family, refuse_renumbering
from .taps import Tap


def scoring_block(config: Any) -> int:
    """The tower's last block with full attention; all have it where the config names none."""
    full = getattr(config.vision_config, "fullatt_block_indexes", None)
    return int(max(full) if full else config.vision_config.depth - 1)


class QwenStage1(Stage1):
    """Retained tokens stay at their places in the frame; zeros elsewhere.

    Scores are made while the scoring attention is called, a segment (image, frame) at a time and streamed over query
    blocks, so no n x n map is made and nothing of that size outlives the call.
    """

    @property
    def attention(self) -> Any:
        return self.tower.blocks[scoring_block(self.core.config)].attn

    def pool(self, x: Tensor) -> Tensor:
        """The four patches of a merged token follow each other."""
        return x.unflatten(1, (-1, self.core.config.vision_config.spatial_merge_size**2)).mean(2)

    def taps(self) -> list[Any]:
        return Tap(self).hook(self.tower, self.attention)

    def before_attention(self, call: Call, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        for scores, keys in received(attention, hidden, **others):
            call.scores.append(self.pool(scores[..., None])[..., 0])
            call.keys.append(self.pool(keys))

    def after_tower(self, call: Call, tower: Any, output: Any) -> None:
        side, grids = tower.config.spatial_merge_size, call.tower_kwargs["grid_thw"]
        scores, keys = torch.cat(call.scores, 1)[0], torch.cat(call.keys, 1)[0]
        order = image_order(tower, grids)
        if order is not None:
            scores, keys = scores[order], keys[order]
        features, start, parts = output.pooler_output, 0, []
        for frames, rows, columns in grids.tolist():
            shape = int(rows) // side, int(columns) // side
            for _ in range(int(frames)):
                part = slice(start, start + shape[0] * shape[1])
                encoded = Encoded(scores[None, part], keys[None, part], features[None, part], shape)
                decided = merge(self.config, encoded, dynamic=True)
                parts.append(merged_in_place(self.config, decided, encoded.features))
                call.merges.append(decided)
                start = part.stop
        call.features, call.sizes = (torch.cat([part[i][0] for part in parts]) for i in (0, 1))


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
    stage1 = QwenStage1
    towers = ("visual",)
    projectors = ("merger", "deepstack_merger_list")

    def tokens_of_grid(self, config: Any, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        tokens: int = frames * rows * columns // config.vision_config.spatial_merge_size**2
        if not tokens:
            raise DuetError(f"grid {grid} is less than one visual token of a {config.model_type}: give an image's.")
        return tokens

    def check(self, config: Any, duet: Settings) -> None:
        refuse_renumbering(config, duet, "its positions have three axes")
