"""What differs between model families, and what most of them share. See docs/add-a-family.md."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn

from ..config.budget import as_grid
from ..config.settings import Settings
from ..errors import DuetError
from .hearing import AudioInputs
from .image_shape import ImageShape
from .pixel_inputs import PixelInputs

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from .encoding import Stage1
    from .pixelprune import Pruning
    from .video.processors import FrameProcessor
    from .video.sampling import Sampling

FAMILIES: dict[str, Family] = {}  # by the model_type of a config


class Family(PixelInputs, AudioInputs):
    """One model family; a family's file says what is not as here.

    A subclass is registered for the values of `config.model_type` that it is given, wherever it stands:
    `class Mine(Family, model_types=("mine",))`.

    Attributes:
        positions: "renumber" or "keep", what the published method does after a drop, or what suits the decoder.
        position_axes: of the decoder; three are made by the model itself, of ids and grids.
        dynamic: whether images have different numbers of visual tokens; then a small one clamps K1 and K2
            (docs/method.md, 1.8), and budgets are fractions or need the grid of an image.
        runs: modalities whose spans in stage 2 are the unbroken runs of visual tokens in the prompt, because the
            encoder hands over parts of an image or video (tiles, frames); elsewhere each entry it hands over is one.
        keep_ratios: keep ratios of `duet` at L/2 and 3L/4 where a budget is solved for.
        reserved: how many of the dominant tokens are no patches (CLS, where it enters the sequence).
        downsamples: whether images can be shrunk before the encoder and leave zeros.
        tiled: whether a photo is cut into tiles, each with `visual_tokens`.
        tiles_apart: whether stage 2 ranks each tile by itself, as text stands between them.
        layout_options: what the image processor is told besides, to lay an image out as the model gets it.
        cut_by_size: whether `image_shape` is given an image's size in pixels, by which it is cut into crops.
        crops_together: whether stage 1 merges all crops of an image together.
        whole_videos: whether stage 1 can be shown all frames of a video together, which may then keep different numbers
            of tokens.
        every_patch: whether each patch of the tower is one visual token behind a projector of two layers, so that the
            operations of a training step can be counted.
        features: where an encoder's output holds its features, of each image (n, D).
        towers: attributes of the core model that hold vision towers.
        projectors: names of modules and parameters between tower and language model. Where stage 1 stands on the
            projector, the first is the core model's attribute that holds it.
        video_processor: prepares videos where torchvision is missing, and knows which frames are shown; None where
            the stock processor takes no video.
        frames_as_images: which frames are shown, one image after the other, where the stock processor takes no video.
        stage1: what hooks the encoders.
        pruning: what leaves blocks of pixels out in front of the tower; None where it takes images whole.
    """

    positions: Literal["renumber", "keep"] = "renumber"
    position_axes = 1
    dynamic = False
    runs: tuple[str, ...] = ()
    keep_ratios: tuple[float, float] = (0.5, 0.0)
    reserved = 0
    downsamples = False
    tiled = False
    tiles_apart = False
    layout_options: ClassVar[dict[str, Any]] = {}
    tiles_advice = ""  # ends the refusal of `tiles`
    cut_by_size = False
    crops_together = False
    whole_videos = False
    every_patch = False
    features = "pooler_output"
    towers: tuple[str, ...] = ("vision_tower",)
    projectors: tuple[str, ...] = ("multi_modal_projector",)
    video_processor: type[FrameProcessor] | None = None
    frames_as_images: Sampling | None = None
    stage1: type[Stage1]
    pruning: type[Pruning] | None = None

    def __init_subclass__(cls, model_types: tuple[str, ...] = ()):
        FAMILIES.update(dict.fromkeys(model_types, cls()))

    def variant(self, config: PreTrainedConfig) -> Family:
        """The family as it is for one model: itself, or what suits a part of another kind."""
        return self

    # ---- how many visual tokens ----

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        """Visual tokens of one image (AnyRes: of one crop; videos: of one frame), from the model's config.

        Raises:
            ValueError: a family of dynamic resolution.
        """
        raise DuetError(
            f"images of a {config.model_type} have different numbers of visual tokens: give keep=, a fraction, "
            "or grid= beside tokens=."
        )

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        """Visual tokens of an image whose patch grid (frames, rows, columns) is given, as in `image_grid_thw`."""
        raise DuetError(f"images of a {config.model_type} always have {self.visual_tokens(config)} visual tokens: "
                         "leave grid= out.")  # fmt: skip

    def row_ends(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        """Tokens that end the rows of such an image, beside its visual tokens."""
        return 0

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        """Whether one entry that the encoder hands over can have this many visual tokens, row ends included."""
        return True

    def image_shape(
        self,
        config: PreTrainedConfig,
        grid: tuple[int, ...] | None = None,
        tiles: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ImageShape:
        """The image of a fixed-resolution model, the largest one of an AnyRes model's grids, or one of `grid` patches.

        Args:
            grid: rows and columns of the image's patches, for models whose images differ.
            tiles: how many tiles it is cut into, for models that do that (`tiled`); one if not given.
            size: (height, width) in pixels, for AnyRes models; their largest grid, filled, if not given.

        Raises:
            DuetError: no grid, and a model whose images differ; tiles of a model that cuts none.
        """
        grid = None if grid is None else as_grid(grid)
        if self.tiled:
            tiles = 1 if tiles is None else tiles
            if tiles < 1:
                raise DuetError(f"tiles {tiles} shows the model nothing: give 1 or more.")
            each = self.visual_tokens(config) if grid is None else self.tokens_of_grid(config, grid)
            return ImageShape(tiles * each, tiles, each, spans=tiles if self.tiles_apart else 1, unit="tile")
        if tiles is not None:
            known = ", ".join(name for name, family in FAMILIES.items() if family.tiled)
            raise DuetError(
                f"tiles {tiles} is for models of type {known}, and this one is a {config.model_type}"
                f"{self.tiles_advice}: leave tiles= out."
            )
        if not self.dynamic:
            patches = self.visual_tokens(config) if grid is None else self.tokens_of_grid(config, grid)
            return ImageShape(patches, 1, patches)
        if grid is None:
            raise DuetError(
                f"images of a {config.model_type} have different numbers of visual tokens: give grid=, the rows and "
                "columns of the image's patches, too."
            )
        patches, ends = self.tokens_of_grid(config, grid), self.row_ends(config, grid)
        return ImageShape(patches + ends, 1, patches, dynamic=True, row_ends=ends)

    # ---- what a processor hands over ----

    def placeholders(self, config: PreTrainedConfig) -> dict[str, int]:
        """Modality -> the id of its placeholder in prompts."""
        ids = {modality: getattr(config, f"{modality}_token_id", None) for modality in ("image", "video")}
        return {modality: token for modality, token in ids.items() if token is not None}

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> tuple[int, int]:
        """Rows and columns of the visual tokens of one image, tile or frame, or of an AnyRes image's base crop.

        Args:
            inputs: what the processor made of the prompt.
            tokens: visual tokens of each frame, where the prompt has a video.
        """
        if tokens is None and self.dynamic:
            return (config.vision_config.image_size // config.vision_config.patch_size,) * 2
        return (math.isqrt(self.visual_tokens(config) if tokens is None else tokens),) * 2

    def sees_ahead(self, kwargs: dict[str, Any], past: int) -> bool:
        """Tell whether the text of a prompt sees what stands behind it, in a call behind `past` tokens of a cache."""
        return False

    def entries(self, output: Any) -> Any:
        """What an encoder's output holds of each image, (n, D) each."""
        return getattr(output, self.features)

    def without_removed(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out of a call's `mm_encoder_outputs` what the stock model itself removes of them."""
        return kwargs

    def frame_rule(self, processor: ProcessorMixin) -> Sampling:
        """Which frames of a video the model is shown: what its files say, or the family's habit."""
        if self.frames_as_images is not None:
            return self.frames_as_images
        if self.video_processor is None:
            raise DuetError("models of this family take pictures only: give no video.")
        # a stock processor (torchvision is there) has the same settings under the same names
        return self.video_processor.rule(processor.video_processor)

    @property
    def takes_video(self) -> bool:
        return self.video_processor is not None or self.frames_as_images is not None

    # ---- the model's parts ----

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        """Raise ValueError where this model cannot do what is asked of it."""

    def hook_encoder(self, core: nn.Module, duet: Settings) -> list[Any]:
        """Put stage 1 on a model's encoders; what it returns has `remove()`."""
        if duet.pixelprune is None or self.pruning is None:
            return self.stage1(core, duet, self).hook()
        stage = (self.pruning.alone if duet.dominant is None else self.stage1)(core, duet, self)
        return [*self.pruning(stage).hook(), *stage.hook()]

    def hook_encoders(self, core: nn.Module, duet: Settings) -> list[Any]:
        """Put stage 1 on what it is asked for: `hook_encoder` for images, `hook_audio` for sound."""
        return [*(self.hook_encoder(core, duet) if duet.merges else ()), *self.hook_audio(core, duet)]

    def is_projector(self, name: str) -> bool:
        """Whether a parameter or module of this name lies in the projector between tower and language model."""
        return any(part in self.projectors for part in name.split("."))

    def is_tower(self, name: str) -> bool:
        """Whether a parameter or module of this name lies in a vision tower, the projector excepted."""
        return not self.is_projector(name) and any(part in self.towers for part in name.split("."))
