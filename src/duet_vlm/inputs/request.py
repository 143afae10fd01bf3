"""What `duet run` is asked: read and checked before anything long starts, the cheap things first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..config.settings import DuetConfig
from ..errors import DuetError
from ..families import family_of
from ..families.placeholders import check_text
from .checkpoints import DEMO, check_device, check_dtype, read_config, read_processor, read_weights
from .choice import Chosen, chosen
from .files import check_file
from .images import read_image
from .video.decoding import Clip, is_video
from .video.inputs import check_model, content, show_frames, video_inputs

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
DEFAULT_KEEP = 1 / 3
UNKNOWN_TO_DEMO = "the demonstration model knows drawn scenes only{}; for photos give --model."


@dataclass(frozen=True)
class Request:
    """What was asked on the command line; see `duet run --help`.

    Attributes:
        media: a picture, or a video by its ending.
        model: a folder, a hub id, or "demo" for the demonstration model.
        method: if None and there is no budget, the settings that the model brings, or "duet".
        frames: how many frames of a video; if None, as many as its model takes by itself.
    """

    media: Path
    ask: str
    model: str = DEMO
    method: str | None = None
    tokens: float | None = None
    keep: float | None = None
    show: Path | None = None
    compare: bool = False
    dtype: str = "auto"
    device: str | None = None
    max_new_tokens: int = 64
    frames: int | None = None


@dataclass
class Prepared:
    """A request whose every part has been found good.

    Attributes:
        image: the PIL picture, or
        clip: the frames of the video.
        notes: a sentence for each thing that the user should know before the answer.
    """

    request: Request
    image: Any
    clip: Clip | None
    chosen: Chosen
    model: Any
    processor: Any
    inputs: Any
    unknown_words: list[str]
    notes: list[str]

    @property
    def config(self) -> DuetConfig:
        return self.chosen.config


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


@contextlib.contextmanager
def processing(what: str, advice: str) -> Iterator[None]:
    """Inside, a processor is at work: they raise many kinds at pictures and texts that they were not made for."""
    try:
        yield
    except Exception as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DuetError(f"the model's processor refuses {what} ({told}): {advice}.") from error


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


def grid_of(inputs: Any) -> tuple[int, ...] | None:
    """(1, rows, columns) in patches of the image or of one frame, where a processor tells."""
    for name in ("image_grid_thw", "video_grid_thw"):
        if name in inputs:
            return (1, *inputs[name][0].tolist()[1:])
    return None


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


def prompt(processor: Any, question: str, media: list[dict[str, str]] | None = None) -> str:
    """The question after the media, in the model's chat format.

    Args:
        media: what stands before the question in a chat; one image if not given.
    """
    media = [{"type": "image"}] if media is None else media
    if getattr(processor, "chat_template", None):
        said = [*media, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
        return text
    tokens = "".join(getattr(processor, f"{part['type']}_token", f"<{part['type']}>") for part in media)
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": f"{tokens}\n{question}"}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text
    return f"USER: {tokens}\n{question} ASSISTANT:"


def special_tokens(processor: Any) -> dict[str, bool]:
    """What to tell the processor: a chat template that writes the first token itself would get it twice."""
    tokenizer = getattr(processor, "tokenizer", processor)
    start, shown = tokenizer.bos_token, prompt(processor, "")
    return {"add_special_tokens": False} if start and shown.startswith(start) else {}
