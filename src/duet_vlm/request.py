"""What `duet run` is asked: read and checked before anything long starts, the cheap things first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import DuetConfig
from .demo.model import folder as demo_folder
from .families import family_of
from .loading import check_device, check_dtype, read_config, read_model
from .presets import preset

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
DEFAULT_KEEP = 1 / 3


@dataclass(frozen=True)
class Request:
    """What was asked on the command line; see `duet run --help`."""

    image: Path
    ask: str
    model: str | None = None
    method: str = "duet"
    tokens: float | None = None
    keep: float | None = None
    show: Path | None = None
    compare: bool = False
    dtype: str = "auto"
    device: str | None = None
    max_new_tokens: int = 64


@dataclass
class Prepared:
    """A request whose every part has been found good."""

    request: Request
    image: Any
    config: DuetConfig
    model: Any
    processor: Any
    inputs: Any
    unknown_words: list[str]


def prepare(request: Request, status: Callable[[str], Any] = lambda _: None) -> Prepared:
    """Read and check everything, the cheap things first.

    Raises:
        ValueError: one sentence that says what to put right.
    """
    question = request.ask.strip()
    if not question:
        raise ValueError("the question is empty: ask something about the picture, for example --ask 'What is this?'.")
    image = read_image(request.image)
    if request.show is not None:
        check_picture_file(request.show)
    config = read_config_of(request)
    duet = budget_config(config, request.method, request.tokens, request.keep, DEFAULT_KEEP)
    status("Loading the model")
    model, processor = load(request)
    words = []
    if request.model is None:
        from .demo.vocabulary import unknown_words

        words = unknown_words(question)
    inputs = processor(images=image, text=prompt(processor, question), return_tensors="pt", **special_tokens(processor))
    return Prepared(request, image, duet, model, processor, inputs.to(model.device, model.dtype), words)


def budget_config(
    config: Any, method: str, tokens: float | None, keep: float | None, default_keep: float | None = None
) -> DuetConfig:
    """The preset that a command line asks for.

    Raises:
        ValueError: an unsupported model, an unknown method, or a budget that is missing, doubled or out of reach.
    """
    family_of(config)
    if tokens is not None and keep is not None:
        raise ValueError(f"--tokens {tokens:g} and --keep {keep:g} are both a budget: give one of them.")
    if method == "none":
        if tokens is not None or keep is not None:
            raise ValueError("method 'none' compresses nothing: leave out --tokens and --keep, or choose another.")
        return DuetConfig()
    if tokens is None and keep is None:
        if default_keep is None:
            raise ValueError("there is no budget: give --tokens, an average per layer, or --keep, a fraction.")
        keep = default_keep
    return preset(method, model=config, tokens=tokens, keep=keep)


def read_image(path: Path) -> Any:
    """An RGB picture, turned upright.

    Raises:
        ValueError: no file, no picture, or a damaged one.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"image {str(path)!r} {kind}: give the path of a picture file.")
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(
            f"image {str(path)!r} is no picture: give a PNG, JPEG, WebP, GIF, BMP or TIFF file."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image {str(path)!r} is truncated or damaged ({str(error).rstrip('.')}): give a whole picture file."
        ) from error


def check_picture_file(path: Path) -> None:
    """Raises ValueError where no picture can be written."""
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"picture {str(path)!r} has no known ending: choose one of {', '.join(PICTURES)}.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"picture {str(path)!r} cannot be written: its folder does not exist, create it first.")


def read_config_of(request: Request) -> Any:
    """The config of the model asked for, and a check of where and in what it shall run."""
    check_dtype(request.dtype)
    check_device(request.device)
    if request.model is not None:
        return read_config(request.model)
    if not (demo_folder() / "config.json").is_file():
        raise ValueError("this installation has no demonstration model: give --model, a folder or a hub id.")
    return read_config(str(demo_folder()))


def load(request: Request) -> tuple[Any, Any]:
    """The model asked for, in eval mode, and its processor."""
    device = check_device(request.device)
    if request.model is not None:
        return read_model(request.model, request.dtype, device)
    # the demonstration model is saved in half precision to be small; it computes in full
    return read_model(str(demo_folder()), "float32" if request.dtype == "auto" else request.dtype, device)


def prompt(processor: Any, question: str) -> str:
    """The question after the image, in the model's chat format."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text
    image = getattr(processor, "image_token", "<image>")
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": f"{image}\n{question}"}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text
    return f"USER: {image}\n{question} ASSISTANT:"


def special_tokens(processor: Any) -> dict[str, bool]:
    """What to tell the processor: a chat template that writes the first token itself would get it twice."""
    tokenizer = getattr(processor, "tokenizer", processor)
    start, shown = tokenizer.bos_token, prompt(processor, "")
    return {"add_special_tokens": False} if start and shown.startswith(start) else {}
