"""What a processor hands a model beside text: pixels, how they are cut, and how to make some.

Only a family says what that is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Make = Callable[[tuple[int, ...]], Tensor]  # of a shape, pixels


class PixelInputs:
    """The part of a family that reads a prompt's inputs; `inputs` is what a processor made, or a call's arguments.

    Attributes:
        pixel_arguments: modality -> the names under which the model takes its pixels, of which a call uses one.
        pixel_masks: names of what tells pixels from padding.
        pixels_along: the axis on which the pixels of one image follow those of another.
    """

    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("pixel_values",),
        "video": ("pixel_values_videos",),
    }
    pixel_masks: tuple[str, ...] = ()
    pixels_along = 0

    def pixels_in(self, inputs: Mapping[str, Any], modality: str | None = None) -> Any:
        """The pixels of images, of videos, or of whichever come; None where none do."""
        names = self.pixel_arguments.values() if modality is None else [self.pixel_arguments[modality]]
        for listed in names:
            for name in listed:
                pixels = inputs.get(name)
                if pixels is not None:
                    return pixels
        return None

    def without_pixels(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The same inputs for a later turn, whose pixels are encoded already; grids stay, as positions need them."""
        gone = {name for listed in self.pixel_arguments.values() for name in listed} | {*self.pixel_masks}
        return {name: x for name, x in inputs.items() if name not in gone}

    def crops_in(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """(n, 3, height, width) what the tower sees at once, image after image, crop after crop, frame after frame.

        None where there is no picture, and where pixels are flat patches of whole pictures.
        """
        pixels = self.pixels_in(inputs)
        return None if pixels is None or pixels.ndim < 4 else pixels.flatten(0, -4)

    def packed_sizes(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """(images, 2) height and width in pixels of images whose crops are packed to one grid; None elsewhere."""
        return None

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        """(1, rows, columns) in patches of a prompt's image or of one frame, where the processor tells."""
        return None

    def frames_together(self, processor: Any) -> int:
        """Frames of a video that are encoded as one."""
        return 1

    def crop_size(self, config: PreTrainedConfig) -> tuple[int, int, int]:
        """Channels, height and width of what the tower sees at once."""
        vision, side = config.vision_config, config.vision_config.image_size
        height, width = (side, side) if isinstance(side, int) else side
        return getattr(vision, "num_channels", 3), height, width

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int] | None:
        """Rows and columns of patches of the image that is timed where a model takes any size; None elsewhere."""
        return None

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Make the arguments of `get_image_features` for `count` images, as the processor would hand them over.

        Args:
            make: (shape) -> the pixels.
            grid: rows and columns of patches, for models whose images differ.
            tiles: of each image.
            size: (height, width) in pixels, for AnyRes models.
        """
        return {"pixel_values": make((count * tiles, *self.crop_size(config)))}

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        """Make them for one image without content, as small as the model takes; some towers take zeros for padding.

        Returns:
            float32 ones, and whatever integers go with them, on the CPU.
        """
        return self.pixels(config, torch.ones)

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make what a processor gives beside ids (B, S): the kind of each token, and sizes for positions."""
        return {}
