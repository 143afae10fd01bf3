"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..config.methods import names
from ..errors import DuetError

Model = Annotated[
    str | None,
    typer.Option(
        help="A supported model: a folder written by save_pretrained, a hub id, or demo for the demonstration model."
    ),
]
Shape = Annotated[
    str | None, typer.Option(help="Instead of a model, a published shape: llava-1.5-7b, llava-1.5-13b or tiny.")
]
Method = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(names())}; two joined as visionzip+fastv; one of a plug-in; or saved: the settings saved "
        "with the model. Without a method and a budget these, where there are any; else duet."
    ),
]
Keep = Annotated[float | None, typer.Option(help="The budget as a fraction of the image's visual tokens, in (0, 1].")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here; - is stdout.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto for what the weights are saved in.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest one there is if not given.")]
Grid = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="ROWS COLUMNS",
        help="The image's patches, for models whose images differ in size (Qwen); also written as 48x64.",
    ),
]
Tiles = Annotated[
    int | None,
    typer.Option(
        help="How many tiles the image is cut into (InternVL, SmolVLM, Idefics3; Gemma 3: crops); 1 if not given.",
        min=1,
    ),
]


class Grids(TyperCommand):
    """A command whose --grid takes its two numbers as `8 12` or as `8x12`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        written = re.sub(r"(?<=\0)--grid[=\0](\d+)[xX](\d+)(?=\0)", r"--grid\0\1\0\2", "\0".join(["", *args, ""]))
        return super().parse_args(ctx, written.split("\0")[1:-1])


def one_of(model: str | None, shape: str | None) -> str:
    if model is None or shape is not None:
        raise DuetError("give one of --model, a folder or hub id, and --shape, for example --shape llava-1.5-7b.")
    return model
