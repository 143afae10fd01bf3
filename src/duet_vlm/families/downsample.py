"""Where a stage 1 that works on pixels meets an encoder: in front of a CLIP tower, and behind the projector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config.settings import Settings
from ..stage1.downsample import covered, downsample
from . import cls_tower
from .encoding import Stage1
from .family import Family


class Downsample(Stage1):
    """Shrinks the pixels in front of a CLIP tower, whose position embeddings are interpolated by the stock model.

    The tokens stand where the patches they cover stood, zeros elsewhere. It shrinks for the engine only: features that
    somebody else asks for are stock's, and come without an outcome.

    Args:
        core: the core model.
        config: `downsample` says to how many rows and columns of patches.
        family: the model's.
    """

    def __init__(self, core: Any, config: Settings, family: Family):
        super().__init__(core, config, family)
        assert config.downsample is not None
        self.small, self.grid = config.downsample, cls_tower.grid(core.config)

    def taps(self) -> list[Any]:
        return [
            *(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True) for tower in self.towers),
            self.projector.register_forward_hook(self.after_projector),
        ]

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        call = self.call()
        if call is None or not call.engine_only:
            return None
        pixels = args[0] if args else kwargs["pixel_values"]
        patch = self.core.config.vision_config.patch_size
        size = self.small[0] * patch, self.small[1] * patch
        small = downsample(pixels, size)
        return (small,), {k: v for k, v in kwargs.items() if k != "pixel_values"} | {"interpolate_pos_encoding": True}

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self.call()
        if call is None or not call.engine_only:
            return None
        places = covered(self.small, self.grid).to(output.device)
        full = output.new_zeros(len(output), self.grid[0] * self.grid[1], output.shape[2])
        full = full.index_copy(1, places, output)
        sizes = torch.zeros(full.shape[:2], dtype=torch.float32, device=full.device).index_fill(1, places, 1.0)
        call.features, call.sizes = full.flatten(0, 1), sizes.flatten()
        return full
