"""GOT-OCR 2.0 and DeepSeek-OCR 2: towers of SAM, whose attention adds biases of places, so that stage 2 runs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..config.settings import Settings
from ..errors import DuetError
from . import fixed
from .family import Family
from .pixel_inputs import Make
from .refusals import refuse_stage_1

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CROP = 768  # pixels of a crop's side, which 144 queries read
SAM = "its tower's attention adds what it learned of places, which scores would miss"


class GotOcr2(fixed.Fixed, model_types=("got_ocr2",)):
    """A page, or each of its crops, has as many tokens; two convolutions join 4 x 4 patches to one."""

    runs = ("image",)
    tiled = True

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return int(math.ceil(config.vision_config.image_size // config.vision_config.patch_size / 4) ** 2)

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_stage_1(config, duet, SAM)


class DeepseekOcr2(Family, model_types=("deepseek_ocr2",)):
    """Learned queries read a page: 144 of each crop, 256 of the whole, and a token that ends them."""

    dynamic = True
    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("pixel_values", "pixel_values_local", "num_local_patches")
    }
    projectors = ("multi_modal_projector", "view_separator")

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        """`grid` is (rows, columns) of crops; a page of one is not cut."""
        crops = grid[-2] * grid[-1]
        return 257 + 144 * (crops if crops > 1 else 0)

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int]:
        """A page that is not cut."""
        return 1, 1

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        """Crops in a row, for their number is all that counts; `num_local_patches` (n,) says how many, 0 of a whole."""
        crops = inputs.get("num_local_patches")
        return None if crops is None else (1, 1, max(1, int(crops[0])))

    def token_grid(self, config: PreTrainedConfig, inputs: object, tokens: int | None = None) -> tuple[int, int]:
        raise DuetError("the visual tokens of a deepseek_ocr2 are learned queries, which have no place in a picture.")

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        side, crops = config.vision_config.sam_config.image_size, math.prod((grid or self.usual_grid(config))[-2:])
        whole = {"pixel_values": make((count, 3, side, side))}
        if crops == 1:
            return whole
        return whole | {
            "pixel_values_local": make((count * crops, 3, CROP, CROP)),
            "num_local_patches": torch.tensor([crops] * count),
        }

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_stage_1(config, duet, SAM)
