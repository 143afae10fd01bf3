"""`duet run`: its options, its refusals and its output. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..console import terminal
from ..console.options import (
    ConfigFile,
    Coverage,
    Device,
    Dtype,
    History,
    JsonFile,
    Keep,
    Method,
    Model,
    Threads,
    Tokens,
    number_or_auto,
)
from ..inputs.files import STDOUT


def run(
    media: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A picture that Pillow reads: PNG, JPEG, WebP, ...; or a video: MP4, WebM, MKV, ..."
        ),
    ],
    ask: Annotated[str, typer.Option(help="The question about the picture or video.")],
    model: Model = "demo",
    method: Method = None,
    tokens: Tokens = None,
    keep: Keep = None,
    coverage: Coverage = None,
    history: History = None,
    show: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what was kept, merged and dropped into this picture.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Answer uncompressed too, and compare.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Threads = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 64,
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto",
            help="Frames of a video to show the model; its family's own number if not given; auto for as many as cost "
            "what these cost without compression.",
        ),
    ] = None,
    json_file: JsonFile = None,
    config_file: ConfigFile = None,
) -> None:
    """Answer a question about a picture or video with compressed visual tokens, and show what was kept.

    Without a budget a third of the visual tokens is kept, on average over the layers.

    Examples:

      duet run examples/scene.png --ask "What color is the star?" --show kept.png

      duet run photo.jpg --ask "What does the sign say?" --model llava-hf/llava-1.5-7b-hf --tokens 64 --compare

      duet run photo.jpg --ask "Who is there?" --model ./my-llava --method pyramiddrop --keep 0.25

      duet run clip.mp4 --ask "What happens?" --model LanguageBind/Video-LLaVA-7B-hf --frames 8 --show kept.png
    """
    from ..inputs.prepared import Request
    from .refusals import refuse

    terminal.check_json(json_file)
    shown_frames = number_or_auto("--frames", frames)
    request = Request(
        media,
        ask,
        model,
        method,
        tokens,
        keep,
        show,
        compare,
        dtype,
        device,
        max_new_tokens,
        shown_frames,
        coverage,
        history,
    )
    image = refuse(request)
    with terminal.status() as status:
        from .request import prepare_run

        terminal.set_threads(threads)
        prepared = prepare_run(request, image, status)
        for note in prepared.notes:
            print(f"duet: {note}", file=sys.stderr)
        from .answer import answer

        report = answer(prepared, status)
    terminal.write_json(report, json_file)
    if json_file == STDOUT:
        return
    from ..console.tables import run_table

    console = terminal.console()
    console.print(f"[bold]{terminal.escape(report['answer'])}[/bold]", highlight=False)
    if compare:
        console.print(f"uncompressed: {terminal.escape(report['uncompressed']['answer'])}", highlight=False)
    console.print(run_table(report))
    console.print(report["note"], style="dim", highlight=False)
    if show is not None:
        console.print(f"What was kept: {show}", highlight=False)
