"""The `duet` command. Heavy imports happen inside the commands, so that help is immediate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..checks.cli import check
from ..console import terminal
from ..console.options import Device, Dtype, Grid, Grids, JsonFile, Keep, Method, Model, Shape, Tiles, one_of
from ..evaluation.cli import SeveralValues, evaluate
from ..training.cli import train
from .bench import bench
from .demo import app as demo

app = typer.Typer(
    name="duet",
    help="Compress the visual tokens of vision-language models: merge them at the encoder, drop them inside the "
    "language model.\n\nStart with: duet run examples/scene.png --ask 'What color is the star?' --show kept.png",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    cls=terminal.Commands,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"duet-vlm {version('duet-vlm')}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option(terminal.DEBUG, help="Show where an error comes from; may stand behind the command, too.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    media: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A picture that Pillow reads: PNG, JPEG, WebP, ...; or a video: MP4, WebM, MKV, ..."
        ),
    ],
    ask: Annotated[str, typer.Option(help="The question about the picture or video.")],
    model: Annotated[
        str,
        typer.Option(
            help="A supported model: a folder written by save_pretrained or by duet train, or a hub id; for videos one "
            "that takes them. demo is the small demonstration model inside the package, which knows drawn scenes only."
        ),
    ] = "demo",
    method: Method = None,
    tokens: Annotated[
        float | None, typer.Option(help="The budget: visual tokens per layer on average; by default a third of them.")
    ] = None,
    keep: Keep = None,
    show: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what was kept, merged and dropped into this picture.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Answer uncompressed too, and compare.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 64,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a video to show the model; its family's own number if not given.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Answer a question about a picture or video with compressed visual tokens, and show what was kept.

    Examples:

      duet run examples/scene.png --ask "What color is the star?" --show kept.png

      duet run photo.jpg --ask "What does the sign say?" --model llava-hf/llava-1.5-7b-hf --tokens 64 --compare

      duet run photo.jpg --ask "Who is there?" --model ./my-llava --method pyramiddrop --keep 0.25

      duet run clip.mp4 --ask "What happens?" --model LanguageBind/Video-LLaVA-7B-hf --frames 8 --show kept.png
    """
    with terminal.status() as status:
        from ..inputs.prepared import Request
        from .request import prepare

        terminal.check_json(json_file)
        asked = Request(media, ask, model, method, tokens, keep, show, compare, dtype, device, max_new_tokens, frames)
        prepared = prepare(asked, status)
        for note in prepared.notes:
            print(f"duet: {note}", file=sys.stderr)
        from .run import answer

        report = answer(prepared, status)
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from ..console.tables import run_table

        console = terminal.console()
        console.print(f"[bold]{terminal.escape(report['answer'])}[/bold]", highlight=False)
        if compare:
            console.print(f"uncompressed: {terminal.escape(report['uncompressed']['answer'])}", highlight=False)
        console.print(run_table(report))
        console.print(report["note"], style="dim", highlight=False)
        if show is not None:
            console.print(f"What was kept: {show}", highlight=False)


@app.command(cls=Grids)
def budget(
    tokens: Annotated[
        float | None, typer.Option(help="The budget: visual tokens per image (crop, tile) and layer, on average.")
    ] = None,
    keep: Keep = None,
    model: Model = None,
    shape: Shape = None,
    method: Method = None,
    grid: Grid = None,
    tiles: Tiles = None,
    text_tokens: Annotated[int, typer.Option(help="Text tokens beside the image.", min=0)] = 64,
    json_file: JsonFile = None,
) -> None:
    """What a budget costs per decoder layer: tokens, FLOPs and KV bytes, before and after. Loads no weights.

    Examples:

      duet budget --shape llava-1.5-7b --tokens 192

      duet budget --model llava-hf/llava-1.5-7b-hf --method visionzip --keep 0.11 --json budget.json

      duet budget --model Qwen/Qwen2.5-VL-7B-Instruct --grid 48x64 --keep 0.3

      duet budget --model OpenGVLab/InternVL3-8B-hf --tiles 13 --tokens 64
    """
    with terminal.status():
        from ..inputs.checkpoints import read_config
        from ..inputs.choice import chosen, option_names
        from ..inputs.shapes import shape_config
        from ..measuring import costs

        terminal.check_json(json_file)
        config = shape_config(shape) if shape and not model else read_config(one_of(model, shape))
        settings = chosen(config, method, tokens, keep, grid=grid)
        with option_names():
            costed = costs.report(config, settings.config, text_tokens, grid=grid, tiles=tiles)
        report = {"model": model or shape, "method": settings.method, "settings": settings.words, **costed}
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from ..console.tables import budget_table

        terminal.console().print(budget_table(report))


app.command(cls=Grids)(bench)
app.command("eval", cls=SeveralValues)(evaluate)
app.command()(train)
app.command()(check)
app.add_typer(demo, name="demo")


def main() -> None:
    app(prog_name="duet")


if __name__ == "__main__":
    main()
