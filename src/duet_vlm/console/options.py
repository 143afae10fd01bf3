"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config.methods import names
from ..errors import DuetError
from ..inputs.devices import DTYPES
from ..inputs.shapes import SHAPES

METHODS = (
    f"{', '.join(name for name in names() if name != 'none')}; a stage 1 and a stage 2 joined, as in visionzip+fastv; "
    "one of a plug-in; none; or saved, the settings saved with the model. Without a method and a budget these, where "
    "there are any; else duet."
)


def complete_methods(incomplete: str) -> list[str]:
    """For shells: the methods whose names begin so."""
    return [name for name in [*names(), "saved"] if name.startswith(incomplete)]


def complete_shapes(incomplete: str) -> list[str]:
    """The same of published shapes."""
    return [name for name in SHAPES if name.startswith(incomplete)]


def complete_dtypes(incomplete: str) -> list[str]:
    """The same of dtypes."""
    return [name for name in DTYPES if name.startswith(incomplete)]


_MODEL = typer.Option(
    metavar="FOLDER|ID",
    help="A supported model: a folder written by save_pretrained or duet train, a hub id, or demo for the small "
    "demonstration model, which knows drawn scenes only.",
)
_METHOD = typer.Option(metavar="NAME", help=f"The method: {METHODS}", autocompletion=complete_methods)
_METHODS = typer.Option(metavar="NAME", help=f"One method or more: {METHODS}", autocompletion=complete_methods)

Model = Annotated[str, _MODEL]
AnyModel = Annotated[str | None, _MODEL]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"Instead of a model, a published shape: {', '.join(SHAPES)}.",
        autocompletion=complete_shapes,
    ),
]  # fmt: skip
Method = Annotated[str | None, _METHOD]
Methods = Annotated[list[str] | None, _METHODS]
Tokens = Annotated[
    float | None, typer.Option(help="The budget: visual tokens per image (crop, tile) and layer, on average.")
]
Keep = Annotated[float | None, typer.Option(help="The budget as a fraction of the image's visual tokens, in (0, 1].")]
Coverage = Annotated[
    float | None,
    typer.Option(
        help="Instead of a budget: the share of each image that its tokens are to cover, in (0, 1]; for scope, tops, "
        "mmr and divprune, with or without a stage 2."
    ),
]
CoverageList = Annotated[
    list[float] | None, typer.Option(help="Instead of budgets: shares of each image to be covered, one or more.")
]
History = Annotated[
    float | None,
    typer.Option(help="What every image before the last one keeps of its budget, as a fraction in (0, 1]."),
]
TokensList = Annotated[
    list[float] | None,
    typer.Option(help="Budgets, one or more: visual tokens per image (crop, tile) and layer, on average."),
]
KeepList = Annotated[
    list[float] | None,
    typer.Option(help="Budgets as fractions of the image's visual tokens, in (0, 1], one or more."),
]
Limit = Annotated[int | None, typer.Option(help="Ask only the first so many questions.", min=1)]
BatchSize = Annotated[int, typer.Option(help="Prompts at a time.", min=1)]
LongestAnswer = Annotated[
    int | None, typer.Option(help="The longest answer, in tokens; the model's own limit, or 32.", min=1)
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here; - is stdout.")]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="float32, bfloat16, float16, or auto for what the weights are saved in.",
        autocompletion=complete_dtypes,
    ),
]  # fmt: skip
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; the fastest one there is if not given.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; torch's default if not given.", min=1)]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="WIDTHxHEIGHT",
        help="The image's size in pixels, laid out in patches, tiles or crops as the model's own processor does it.",
    ),
]  # fmt: skip
Grid = Annotated[
    str | None,
    typer.Option(
        metavar="ROWSxCOLUMNS", help="Instead of a size, the image's patches, for models whose images differ (Qwen)."
    ),
]
Tiles = Annotated[
    int | None,
    typer.Option(
        help="Instead of a size, how many tiles the image is cut into (InternVL, SmolVLM, Idefics3; Gemma 3: crops); 1 "
        "if not given.",
        min=1,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE",
        help="Options of this command in YAML or JSON, as in 'tokens: [192, 64]'; the command line goes before it.",
    ),
]  # fmt: skip


def sides(name: str, written: str | None) -> tuple[int, int] | None:
    """The two numbers of an option such as `--grid 48x64`.

    Raises:
        DuetError: anything else.
    """
    if written is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", written)
    if match is None:
        raise DuetError(f"{name} {written!r} is no size: write two whole numbers, as in {name} 48x64.")
    return int(match[1]), int(match[2])


def number_or_auto(name: str, written: str | None) -> int | Literal["auto"] | None:
    """The number of an option such as `--frames 8`, or "auto"; whether it can be is looked at later.

    Raises:
        DuetError: anything else.
    """
    if written is None or written == "auto":
        return written  # type: ignore[return-value]
    if re.fullmatch(r"-?\d{1,9}", written) is None:
        raise DuetError(f"{name} {written!r} is no number: write a whole one, or auto.")
    return int(written)


def share_or_auto(name: str, written: str) -> float | Literal["auto"]:
    """The number of an option such as `--audio-keep 0.6`, or "auto"; whether it is a share is looked at later.

    Raises:
        DuetError: anything else.
    """
    if written == "auto":
        return "auto"
    try:
        return float(written)
    except ValueError:
        raise DuetError(f"{name} {written!r} is no share: write a fraction in (0, 1], or auto.") from None


def one_of(model: str | None, shape: str | None) -> str:
    """Whichever of the two is given.

    Raises:
        DuetError: both, or none.
    """
    if (model is None) == (shape is None):
        raise DuetError("give one of --model, a folder or hub id, and --shape, for example --shape llava-1.5-7b.")
    return model or shape or ""
