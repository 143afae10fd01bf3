"""The model and the image that `duet bench` and `duet budget` are asked about. Heavy imports happen inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..console.options import one_of, sides
from ..inputs.model_folders import brings_settings
from ..inputs.shapes import shape_of

if TYPE_CHECKING:
    from ..inputs.image_sizes import Layout


@dataclass(frozen=True)
class Target:
    """What was asked, found good as far as no model's files are needed.

    Attributes:
        name: the model's folder or hub id, or the published shape's name.
        model, shape: the same, and None for the other.
        brings: whether the model brings settings; None where its files would have to be fetched.
        pixels: (width, height) of the image.
        patches: its rows and columns of patches, given instead.
        tiles: how many tiles it is cut into, given instead.
    """

    name: str
    model: str | None
    shape: str | None
    brings: bool | None
    pixels: tuple[int, int] | None
    patches: tuple[int, int] | None
    tiles: int | None

    @classmethod
    def of(
        cls, model: str | None, shape: str | None, *, image: str | None, grid: str | None, tiles: int | None
    ) -> Target:
        """From the options `--model`, `--shape`, `--image`, `--grid` and `--tiles`.

        Raises:
            DuetError: one of them cannot be, or both or none of the first two are given.
        """
        name, pixels, patches = one_of(model, shape), sides("--image", image), sides("--grid", grid)
        brings = brings_settings(model) if model else False
        if shape:
            shape_of(shape)  # refuses a name that there is not
        return cls(name, model, shape, brings, pixels, patches, tiles)

    def read(self) -> tuple[Any, Layout]:
        """The model's transformers config, and how its processor lays the image out.

        Raises:
            DuetError: files that cannot be read, or an image that the processor refuses.
        """
        from ..inputs.checkpoints import read_config
        from ..inputs.image_sizes import layout
        from ..inputs.shapes import shape_config

        config = shape_config(self.name) if self.shape else read_config(self.name)
        return config, layout(config, self.model, self.shape, self.pixels, self.patches, self.tiles)
