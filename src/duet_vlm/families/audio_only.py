"""Models that hear and see nothing: stage 1 of sound, and stage 2 at the layers of `drops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.settings import Settings
from ..errors import DuetError
from .family import Family
from .image_shape import ImageShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class AudioOnly(Family):
    """A model without images, for which `audio_keep` is the only budget."""

    dynamic = True
    towers = ("audio_tower",)

    def image_shape(self, config: PreTrainedConfig, *_: Any, **__: Any) -> ImageShape:
        """No image."""
        return ImageShape(0, 1, 0, dynamic=True)

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if duet.merges:
            raise DuetError(
                f"a {config.model_type} sees no images, so there is nothing for dominant or downsample to keep: leave "
                "them out, and give audio_keep, as in DuetConfig(audio_keep=0.6)."
            )
