"""A video and a question as a model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DuetError
from ...families import FAMILIES, family_of
from .decoding import Clip, read_frames

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin


def check_model(config: PreTrainedConfig, path: Path) -> None:
    """Raise ValueError where a model takes no video."""
    family = FAMILIES.get(config.model_type)
    if family is None or not family.takes_video:
        known = ", ".join(name for name, family in FAMILIES.items() if family.takes_video)
        raise DuetError(
            f"{str(path)!r} is a video, and models of type {config.model_type!r} take pictures only: "
            f"give --model one of type {known}."
        )


def show_frames(path: Path, config: PreTrainedConfig, processor: ProcessorMixin, count: int | None = None) -> Clip:
    """The frames of a video that a model is shown.

    Args:
        count: how many; if None, what the model's files say, or its family's habit.

    Raises:
        ValueError: see `read_frames`, and `check_model`.
    """
    check_model(config, path)
    rule = family_of(config).frame_rule(processor)
    return read_frames(path, rule if count is None else rule.exactly(count))


def content(config: PreTrainedConfig, clip: Clip) -> list[dict[str, str]]:
    """What stands for the video in a chat."""
    return [{"type": "image"}] * len(clip.indices) if are_images(config) else [{"type": "video"}]


def are_images(config: PreTrainedConfig) -> bool:
    """Whether frames of a video are images to the model, one after the other."""
    return family_of(config).frames_as_images is not None


def video_inputs(config: PreTrainedConfig, processor: ProcessorMixin, clip: Clip, text: str, **options: Any) -> Any:
    """What the processor makes of a prompt with one video."""
    if are_images(config):
        return processor(images=list(clip.frames), text=text, return_tensors="pt", **options)
    told = {"video_metadata": [clip.metadata()], "do_sample_frames": False}
    return processor(videos=[clip.frames], text=text, return_tensors="pt", **told, **options)
