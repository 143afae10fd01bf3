"""What `duet run` is asked: read and checked before anything long starts, the cheap things first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..families import family_of
from ..families.placeholders import check_text
from ..inputs.checkpoints import read_config, read_processor, read_weights
from ..inputs.choice import chosen
from ..inputs.devices import check_device, check_dtype
from ..inputs.files import check_file
from ..inputs.images import read_image
from ..inputs.model_folders import DEMO
from ..inputs.prepared import DEFAULT_KEEP, Prepared, Request
from ..inputs.prompts import grid_of, processing, prompt, special_tokens
from ..inputs.video.decoding import is_video
from ..inputs.video.inputs import check_model, content, show_frames, video_inputs

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
UNKNOWN_TO_DEMO = "the demonstration model knows drawn scenes only{}; for photos give --model."


def prepare(request: Request, status: Callable[[str], Any] = lambda _: None) -> Prepared:
    """Read and check everything, the cheap things first.

    Raises:
        ValueError: one sentence that says what to put right.
    """
    question = request.ask.strip()
    if not question:
        raise DuetError("the question is empty: ask something about the picture, for example --ask 'What is this?'.")
    image = None if is_video(request.media) else read_image(request.media)
    check_frames(request.frames, request.media)
    if request.show is not None:
        check_picture_file(request.show)
    config = read_config_of(request)
    if image is None:
        check_model(config, request.media)
    budget = partial(chosen, config, request.method, request.tokens, request.keep, DEFAULT_KEEP)
    # where images differ in size, tokens are a share of this very one
    settings = None if request.tokens is not None and family_of(config).dynamic else budget()
    status("Loading the processor")
    processor = read_processor(request.model)
    check_text(question, processor, config)
    marks = special_tokens(processor)
    clip = None
    if image is None:
        status("Decoding the video")
        clip = show_frames(request.media, config, processor, request.frames)
        encode = partial(video_inputs, config, processor, clip, prompt(processor, question, content(config, clip)))
    else:
        encode = partial(processor, images=image, text=prompt(processor, question), return_tensors="pt")
    with processing(repr(str(request.media)), "choose another picture or model"):
        inputs = encode(**marks)
    if settings is None:
        settings = budget(grid=grid_of(inputs))
    status("Loading the model")
    model = read_weights(request.model, request.dtype, check_device(request.device))
    words, notes = list[str](), list[str]()
    if request.model == DEMO:
        words, notes = demo_notes(question, image)
    inputs = inputs.to(model.device, model.dtype)
    return Prepared(request, image, clip, settings, model, processor, inputs, words, notes)


def demo_notes(question: str, image: Any) -> tuple[list[str], list[str]]:
    """The words of a question that the demonstration model has never seen; a sentence where it cannot know better."""
    from ..demo.recognise import is_scene
    from ..demo.vocabulary import unknown_words

    words = unknown_words(question)
    if not words and is_scene(image):
        return words, []
    never = f" and has never seen these words: {', '.join(words)}" if words else ""
    return words, [UNKNOWN_TO_DEMO.format(never)]


def check_frames(frames: int | None, path: Path) -> None:
    """Raises ValueError for a number of frames that shows nothing, or that a picture cannot have."""
    if frames is None:
        return
    if not is_video(path):
        raise DuetError(f"--frames {frames} is for videos, and {str(path)!r} is none by its ending: leave it out.")
    if frames < 1:
        raise DuetError(f"--frames {frames} shows the model nothing: give 1 or more.")


def check_picture_file(path: Path) -> None:
    """Raises ValueError where no picture can be written."""
    if path.suffix.lower() not in PICTURES:
        raise DuetError(f"picture {str(path)!r} has no known ending: choose one of {', '.join(PICTURES)}.")
    check_file(path, "the picture")


def read_config_of(request: Request) -> Any:
    """The config of the model asked for, and a check of where and in what it shall run."""
    check_dtype(request.dtype)
    check_device(request.device)
    return read_config(request.model)
