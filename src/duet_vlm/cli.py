"""The `duet` command. Heavy imports happen inside the commands, so that help is immediate."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import terminal
from .demo.cli import app as demo
from .errors import DuetError
from .evaluation.cli import SeveralValues, evaluate
from .training.cli import train

app = typer.Typer(
    name="duet",
    help="Compress the visual tokens of vision-language models: merge them at the encoder, drop them inside the "
    "language model.\n\nStart with: duet run examples/scene.png --ask 'What color is the star?' --show kept.png",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

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
        help="duet, duet-plus, visionzip, fastv, random, ..., two joined as visionzip+fastv, none, or saved: the "
        "settings saved with the model. Without a method and a budget these, where there are any; else duet."
    ),
]
Keep = Annotated[float | None, typer.Option(help="The budget as a fraction of the image's visual tokens, in (0, 1].")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here; - is stdout.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto for what the weights are saved in.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest one there is if not given.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"duet-vlm {version('duet-vlm')}")
        raise typer.Exit()


class Grids(TyperCommand):
    """A command whose --grid takes its two numbers as `8 12` or as `8x12`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        written = re.sub(r"(?<=\0)--grid[=\0](\d+)[xX](\d+)(?=\0)", r"--grid\0\1\0\2", "\0".join(["", *args, ""]))
        return super().parse_args(ctx, written.split("\0")[1:-1])


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
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
        with terminal.plain_errors():
            from .request import Request, prepare

            terminal.check_folder(json_file)
            asked = Request(
                media, ask, model, method, tokens, keep, show, compare, dtype, device, max_new_tokens, frames
            )
            prepared = prepare(asked, status)
        for note in prepared.notes:
            print(f"duet: {note}", file=sys.stderr)
        from .run import answer

        report = answer(prepared, status)
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from .tables import run_table

        console = terminal.console()
        console.print(f"[bold]{terminal.escape(report['answer'])}[/bold]", highlight=False)
        if compare:
            console.print(f"uncompressed: {terminal.escape(report['uncompressed']['answer'])}", highlight=False)
        console.print(run_table(report))
        console.print(report["note"], style="dim", highlight=False)
        if show is not None:
            console.print(f"What was kept: {show}", highlight=False)


@app.command()
def budget(
    tokens: Annotated[
        float | None, typer.Option(help="The budget: visual tokens per image and decoder layer, on average.")
    ] = None,
    keep: Keep = None,
    model: Model = None,
    shape: Shape = None,
    method: Method = None,
    grid: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Rows and columns of the image's patches, for models whose images differ in size."),
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Text tokens beside the image.", min=0)] = 64,
    json_file: JsonFile = None,
) -> None:
    """What a budget costs per decoder layer: tokens, FLOPs and KV bytes, before and after. Loads no weights.

    Examples:

      duet budget --shape llava-1.5-7b --tokens 192

      duet budget --model llava-hf/llava-1.5-7b-hf --method visionzip --keep 0.11 --json budget.json
    """
    with terminal.plain_errors(), terminal.status():
        from . import costs
        from .choice import chosen, option_names
        from .loading import read_config, shape_config

        terminal.check_folder(json_file)
        config = shape_config(shape) if shape and not model else read_config(_one_of(model, shape))
        settings = chosen(config, method, tokens, keep, grid=grid)
        with option_names():
            costed = costs.report(config, settings.config, text_tokens, grid=grid)
        report = {"model": model or shape, "method": settings.method, "settings": settings.words, **costed}
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from .tables import budget_table

        terminal.console().print(budget_table(report))


@app.command()
def bench(
    model: Model = None,
    shape: Shape = None,
    layers: Annotated[
        int | None, typer.Option(help="With --shape: fewer decoder layers, with the drop layers scaled.", min=1)
    ] = None,
    tokens: Annotated[
        list[float] | None, typer.Option(help="Budgets, the option once for each; by default 192, 128 and 64.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Methods, the option once for each: duet, duet-plus, visionzip, ...; by default duet."),
    ] = None,
    runs: Annotated[int, typer.Option(help="Timed rounds; medians are reported.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time, one image each.", min=1)] = 1,
    text_tokens: Annotated[int, typer.Option(help="Text tokens of each prompt.", min=4)] = 64,
    decode_steps: Annotated[int, typer.Option(help="Tokens decoded after each prefill.", min=1)] = 16,
    dtype: Dtype = "bfloat16",
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's default if not given.", min=1)] = None,
    train: Annotated[bool, typer.Option("--train", help="Time training steps instead.")] = False,
    tune: Annotated[
        list[str] | None, typer.Option(help="With --train: lora or full, the option once for each; both if not given.")
    ] = None,
    answer_tokens: Annotated[int, typer.Option(help="With --train: text tokens that are the answer.", min=1)] = 32,
    rank: Annotated[int, typer.Option(help="With --train: the rank of LoRA's adapters.", min=1)] = 16,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="With --train: compute layers again in the backward pass.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Time stock against compressed, side by side in one run, and compare with what the FLOPs promise.

    Vision tower, stage 1, prefill, decoding per token, KV bytes and peak memory. With --shape the weights are random.

    Examples:

      duet bench --shape llava-1.5-7b --layers 8 --json bench.json

      duet bench --model ./my-llava --tokens 192 --tokens 64 --method duet --method fastv --device cuda

      duet bench --train --shape llava-1.5-7b --layers 4 --tune lora --json train.json
    """
    with terminal.plain_errors():
        from .bench import Options, benchmark, settings, shortened, steps
        from .loading import check_device, check_dtype, random_model, read_config, read_weights, shape_config

        terminal.check_folder(json_file)
        if layers and not shape:
            raise DuetError(f"--layers {layers} needs --shape: a model's own layers are all used.")
        config = shape_config(shape) if shape and not model else read_config(_one_of(model, shape))
        listed = settings(config, method or ["duet"], tokens or [192.0, 128.0, 64.0], layers)
        dtype, device = check_dtype(dtype), check_device(device)
        how = Options(runs, batch_size, text_tokens, decode_steps, dtype, device, threads)
        if train:
            from . import train_bench

            training = train_bench.TrainOptions(
                runs, batch_size, text_tokens, answer_tokens, tuple(tune or train_bench.TUNES), rank, checkpointing,
                dtype, device, threads,
            )  # fmt: skip
        with terminal.status() as status:
            if model:
                status("Loading the model")
                network = read_weights(model, how.dtype, how.device)
            else:
                status("Filling random weights")
                network = random_model(shortened(config, layers), how.dtype, how.device)
    with terminal.progress(train_bench.steps(listed, training) if train else steps(listed, how)) as advance:
        if train:
            whole = settings(config, method or ["duet"], tokens or [192.0, 128.0, 64.0])
            figures = train_bench.benchmark(network, listed, training, advance)
            train_bench.add_full_depth(figures, config, whole, training)
        else:
            figures = benchmark(network, listed, how, advance)
    report = {"model": model or shape, **figures}
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from .tables import bench_table, train_table

        tables = [train_table(report, tuned) for tuned in training.tunes] if train else [bench_table(report)]
        for table in tables:
            terminal.console().print(table)


app.command("eval", cls=SeveralValues)(evaluate)
app.command()(train)
app.add_typer(demo, name="demo")


def _one_of(model: str | None, shape: str | None) -> str:
    if model is None or shape is not None:
        raise DuetError("give one of --model, a folder or hub id, and --shape, for example --shape llava-1.5-7b.")
    return model


def main() -> None:
    app(prog_name="duet")


if __name__ == "__main__":
    main()
