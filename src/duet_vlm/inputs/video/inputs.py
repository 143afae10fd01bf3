"""A video and a question as a model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import DuetError
from .decoding import Clip, read_frames
from ...families.video.processors import PROCESSORS
from ...families.video.sampling import Sampling

# models whose stock processor takes no video: frames are images, one after the other
IMAGES = {"gemma3": Sampling(count=8)}
FAMILIES = (*PROCESSORS, *IMAGES)


def check_model(config: Any, path: Path) -> None:
    """Raise ValueError where a model takes no video."""
    from ...families import FAMILIES as SUPPORTED

    if config.model_type not in FAMILIES:
        known = ", ".join(name for name in SUPPORTED if name in FAMILIES)
        raise DuetError(
            f"{str(path)!r} is a video, and models of type {config.model_type!r} take pictures only: "
            f"give --model one of type {known}."
        )


def show_frames(path: Path, config: Any, processor: Any, count: int | None = None) -> Clip:
    """The frames of a video that a model is shown.

    Args:
        count: how many; if None, what the model's files say, or its family's habit.

    Raises:
        ValueError: see `read_frames`, and `check_model`.
    """
    check_model(config, path)
    if config.model_type in IMAGES:
        rule = IMAGES[config.model_type]
    else:
        # a stock processor (torchvision is there) has the same settings under the same names
        rule = PROCESSORS[config.model_type].rule(processor.video_processor)
    return read_frames(path, rule if count is None else rule.exactly(count))


def content(config: Any, clip: Clip) -> list[dict[str, str]]:
    """What stands for the video in a chat."""
    return [{"type": "image"}] * len(clip.indices) if config.model_type in IMAGES else [{"type": "video"}]


def video_inputs(config: Any, processor: Any, clip: Clip, text: str, **options: Any) -> Any:
    """What the processor makes of a prompt with one video."""
    if config.model_type in IMAGES:
        return processor(images=list(clip.frames), text=text, return_tensors="pt", **options)
    told = {
        "total_num_frames": clip.total,
        "fps": clip.rate,
        "duration": clip.duration,
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "frames_indices": list(clip.indices),
    }
    return processor(
        videos=[clip.frames], text=text, video_metadata=[told], do_sample_frames=False, return_tensors="pt", **options
    )
