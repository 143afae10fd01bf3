"""What differs between model families, and what most of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..config.settings import Settings
from ..errors import DuetError

if TYPE_CHECKING:
    from .encoding import Stage1


class Family:
    """One model family; a family's file says what is not as here.

    Attributes:
        positions: "renumber" or "keep", what the published method does after a drop, or what suits the decoder.
        dynamic: whether images have different numbers of visual tokens; then a small one clamps K1 and K2 (METHOD,
            "Stage 1"), and budgets are fractions or need the grid of an image.
        runs: modalities whose spans in stage 2 are the unbroken runs of visual tokens in the prompt, because the
            encoder hands over parts of an image or video (tiles, frames); elsewhere each entry it hands over is one.
        late: keep ratios of `duet` at L/2 and 3L/4 where a budget is solved for.
        downsamples: whether images can be shrunk before the encoder and leave zeros.
    """

    positions = "renumber"
    dynamic = False
    runs: tuple[str, ...] = ()
    late: tuple[float, float] = (0.5, 0.0)
    downsamples = False
    towers: tuple[str, ...] = ("vision_tower",)
    projectors: tuple[str, ...] = ("multi_modal_projector",)
    stage1: type[Stage1]

    def variant(self, config: Any) -> Family:
        """The family as it is for one model: itself, or what suits a part of another kind."""
        return self

    def visual_tokens(self, config: Any) -> int:
        """Visual tokens of one image (AnyRes: of one crop; videos: of one frame), from the model's config.

        Raises:
            ValueError: a family of dynamic resolution.
        """
        raise DuetError(
            f"images of a {config.model_type} have different numbers of visual tokens: give keep=, a fraction, "
            "or grid= beside tokens=."
        )

    def tokens_of_grid(self, config: Any, grid: tuple[int, ...]) -> int:
        """Visual tokens of an image whose patch grid (frames, rows, columns) is given, as in `image_grid_thw`."""
        raise DuetError(f"images of a {config.model_type} always have {self.visual_tokens(config)} visual tokens: "
                         "leave grid= out.")  # fmt: skip

    def row_ends(self, config: Any, grid: tuple[int, ...]) -> int:
        """Tokens that end the rows of such an image, beside its visual tokens."""
        return 0

    def check(self, config: Any, duet: Settings) -> None:
        """Raise ValueError where this model cannot do what is asked of it."""

    def is_whole(self, config: Any, tokens: int) -> bool:
        """Whether one entry that the encoder hands over can have this many visual tokens, row ends included."""
        return True

    def hook_encoder(self, core: nn.Module, duet: Settings) -> list[Any]:
        """Put stage 1 on a model's encoders; what it returns has `remove()`."""
        return self.stage1(core, duet, self).hook()


def feature_layer(config: Any, layers: Any) -> Any:
    """The tower's layer whose output the model uses as features; the last where the config names none."""
    index = getattr(config, "vision_feature_layer", -1)
    return layers[index if index < 0 else index - 1]


def check_feature_layer(config: Any) -> None:
    """Refuse several feature layers, and the embeddings alone."""
    layer = getattr(config, "vision_feature_layer", -1)
    if not isinstance(layer, int) or layer == 0:
        raise DuetError(
            f"stage 1 needs one vision_feature_layer that is not 0, and this model uses {layer!r}: "
            "set dominant=None to use stage 2 alone."
        )


def refuse_renumbering(config: Any, duet: Settings, why: str) -> None:
    """For decoders whose positions cannot be renumbered."""
    if duet.positions == "renumber":
        raise DuetError(f"positions 'renumber' is not possible for {config.model_type}: {why}; use 'keep' or 'auto'.")


def check_downsampling(family: Family, config: Any) -> None:
    """Raise ValueError where images cannot be shrunk before the encoder."""
    if not family.downsamples:
        raise DuetError(
            f"downsample is not possible for {config.model_type}: it is for CLIP towers, where the places in the "
            "prompt do not depend on the image's size; use another stage 1."
        )
