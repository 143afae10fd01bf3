"""What several families cannot do, in one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.registry import Stage1Method, called
from ..config.settings import Settings
from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from .family import Family


def refuse_renumbering(config: PreTrainedConfig, duet: Settings, why: str) -> None:
    """For decoders whose positions cannot be renumbered."""
    if duet.positions == "renumber":
        raise DuetError(f"positions 'renumber' is not possible for {config.model_type}: {why}; use 'keep' or 'auto'.")


def refuse_stage_1(config: PreTrainedConfig, duet: Settings, why: str) -> None:
    """For models whose encoder gives nothing that could be scored and merged."""
    if duet.merges:
        raise DuetError(
            f"stage 1 is not possible for {config.model_type}: {why}; leave dominant None to use stage 2 alone."
        )


def check_downsampling(family: Family, config: PreTrainedConfig) -> None:
    """Raise ValueError where images cannot be shrunk before the encoder."""
    if not family.downsamples:
        raise DuetError(
            f"downsample is not possible for {config.model_type}: it is for CLIP towers, where the places in the "
            "prompt do not depend on the image's size; use another stage 1."
        )


def check_pruning(family: Family, config: PreTrainedConfig) -> None:
    """Raise DuetError where blocks of pixels cannot be left out before the encoder."""
    if family.pruning is None:
        raise DuetError(
            f"pixelprune is not possible for {config.model_type}: it is for towers that take any number of patches, "
            "each with its place (Qwen-VL, GLM-V, PaddleOCR-VL, Pixtral); use another stage 1."
        )


def check_whole_videos(family: Family, config: PreTrainedConfig, method: Stage1Method) -> None:
    """Raise DuetError for a method that is shown whole videos, where a family's frames come one by one."""
    if method.whole_videos and family.takes_video and not family.whole_videos:
        raise DuetError(
            f"merging {called(method.name or method.function)} is shown all frames of a video together, and those of a "
            f"{config.model_type} come one by one and keep as many tokens each: use another stage 1."
        )
