"""What of `duet run` can be refused at once: before torch and transformers are loaded, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..inputs.choice import check_choice
from ..inputs.devices import check_dtype
from ..inputs.files import check_writable
from ..inputs.images import read_image
from ..inputs.model_folders import brings_settings
from ..inputs.paths import check_file
from ..inputs.prepared import Request
from ..inputs.video.decoding import is_video

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")


def refuse(request: Request) -> Any:
    """Check everything that needs no model.

    Returns:
        The picture, upright; None for a video, which is decoded when its model is known.

    Raises:
        DuetError: one sentence that says what to put right.
    """
    if not request.ask.strip():
        raise DuetError("the question is empty: ask something about the picture, for example --ask 'What is this?'.")
    image = None
    if is_video(request.media):
        check_file(request.media, "video", "the path of a video file")
    else:
        image = read_image(request.media)
    check_frames(request.frames, request.media)
    if request.show is not None:
        check_picture_file(request.show)
    check_dtype(request.dtype)
    check_choice(request.method, request.tokens, request.keep, brings_settings(request.model), True, request.coverage)
    return image


def check_frames(frames: int | str | None, path: Path) -> None:
    """Raises DuetError for a number of frames that shows nothing, or that a picture cannot have."""
    if frames is None:
        return
    if not is_video(path):
        raise DuetError(f"--frames {frames} is for videos, and {str(path)!r} is none by its ending: leave it out.")
    if isinstance(frames, int) and frames < 1:
        raise DuetError(f"--frames {frames} shows the model nothing: give 1 or more.")


def check_picture_file(path: Path) -> None:
    """Raises DuetError where no picture can be written."""
    if path.suffix.lower() not in PICTURES:
        raise DuetError(f"picture {str(path)!r} has no known ending: choose one of {', '.join(PICTURES)}.")
    check_writable(path, "the picture")
