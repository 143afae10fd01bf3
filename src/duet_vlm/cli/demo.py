"""`duet demo`: train the demonstration model, draw a scene with questions, measure accuracy."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..console import terminal
from ..console.commands import Command, Commands, Loud
from ..console.options import JsonFile
from ..errors import DuetError
from ..inputs.files import STDOUT, check_file, check_folder, writing
from ..inputs.model_folders import DEMO

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    help="The demonstration model: a LLaVA of 5 M parameters, trained from scratch on drawn scenes.",
)


@app.callback(invoke_without_command=True)
def options(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(cls=Loud)
def train(
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder for the model (a from_pretrained folder) and its checkpoints."),
    ],
    steps_scale: Annotated[
        float, typer.Option(min=0.0001, help="Multiply the number of training steps; 1 is the shipped recipe.")
    ] = 1.0,
    processes: Annotated[
        int, typer.Option(min=1, max=8, help="Training processes, one core each; 2 is the shipped recipe.")
    ] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in OUT.")] = False,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Fuse decoder blocks; by default when g++ is there."),
    ] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(min=0.02, max=1, help="Budgets of the last stage, as fractions; several take turns."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run the last stage only, from this checkpoint (few.pt)."),
    ] = None,
) -> None:
    """Train the demonstration model from scratch (about two hours on two cores), or resume.

    Three stages: vision, warm-up with attention hints, full. Checkpoints are written every 100 steps; progress and
    accuracies go to the terminal and to OUT/checkpoints/*.jsonl. A folder that was trained in before is refused without
    --resume.
    """
    check_folder(out, "the model")
    if start is not None and not start.is_file():
        raise DuetError(f"checkpoint {str(start)!r} is no file: give the few.pt of an earlier training.")
    from duet_vlm.demo.train import Recipe
    from duet_vlm.demo.train import train as run

    recipe = replace(Recipe(), keeps=tuple(keep)) if keep else Recipe()
    try:
        run(out, recipe.scaled(steps_scale), processes, resume, compiled, start)
    except KeyboardInterrupt as error:
        print("duet: stopped; go on from the last checkpoint with --resume.", file=sys.stderr)
        raise typer.Exit(130) from error
    typer.echo(f"Saved the model in {out}. Measure it with: duet demo eval --model {out}")


@app.command("train-time", cls=Loud)
def train_time(
    keep: Annotated[list[float], typer.Option(min=0.02, max=0.99, help="Budgets, as fractions.")] = [0.33, 0.22, 0.11],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each, in turn, after two for warming up.")] = 8,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes per step; 8 per process is the shipped recipe.")] = 8,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Fuse decoder blocks; needs g++.")] = True,
    json_file: JsonFile = None,
) -> None:
    """Measure what a training step costs with and without compression, next to what its operations say."""
    terminal.check_json(json_file)
    from rich.console import Console
    from rich.table import Table

    from duet_vlm.demo.training.timing import measure

    results = measure(keep, scenes, rounds, compiled)
    table = Table("visual tokens", "CPU seconds", "time", "operations", title="forward and backward of a training step")
    for name, row in results["budgets"].items():
        table.add_row(name, f"{row['cpu_seconds']:.3f}", f"{row['time_ratio']:.1%}", f"{row['flops_ratio']:.1%}")
    Console(stderr=json_file == STDOUT).print(table)
    terminal.write_json(results, json_file)


@app.command(cls=Command)
def scene(
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="Picture to write, in the format of its ending: .png, .jpg, ...")
    ],
    seed: Annotated[int | None, typer.Option(min=0, help="Draw this scene; by default a new one each time.")] = None,
    scale: Annotated[int, typer.Option(min=1, max=16, help="Enlarge the 112 x 112 picture by a whole number.")] = 4,
) -> None:
    """Draw a new scene and print questions about it with their answers.

    The picture may be enlarged: the model's processor shrinks it back to 112 x 112 pixels.
    """
    check_ending(out)
    check_file(out, "the scene")
    import numpy as np
    from PIL import Image
    from rich.console import Console
    from rich.table import Table

    from duet_vlm.demo.questions import SKILLS, ask
    from duet_vlm.demo.scenes import make_scene

    if seed is None:
        seed = int(np.random.default_rng().integers(0, 2**31))
    rng = np.random.default_rng(seed)
    drawn = make_scene(rng)
    image = Image.fromarray(drawn.image)
    with writing(out, "the scene"):
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(out)
    table = Table("skill", "question", "answer", title=f"{out}  (seed {seed}, {len(drawn.objects)} objects)")
    for question in ask(rng, drawn, SKILLS):
        if question is not None:
            table.add_row(question.skill, question.text, question.answer)
    Console().print(table)


@app.command("eval", cls=Command)
def evaluate(
    limit: Annotated[int, typer.Option(min=9, help="Number of held-out questions, an equal share per skill.")] = 5000,
    model: Annotated[
        str, typer.Option(metavar="FOLDER", help="demo, or the folder of another copy of the model.")
    ] = DEMO,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Also drop all visual tokens at each layer, and select 11% of them.")
    ] = False,
    keep: Annotated[
        list[float] | None,
        typer.Option(min=0.02, max=1, help="Budgets to measure at, as fractions, one or more."),
    ] = None,
    validation: Annotated[
        bool, typer.Option("--validation", help="Ask about the scenes for decisions, not the held-out ones.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Print the accuracy per skill on held-out scenes, with 95% intervals."""
    terminal.check_json(json_file)
    if model != DEMO and not (Path(model) / "config.json").is_file():
        raise DuetError(f"model {model!r} holds no config.json: give a folder that duet demo train wrote.")
    if keep and ablations:
        raise DuetError("--keep and --ablations are two tables: ask for one at a time.")
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from duet_vlm.demo import ablations as tables
    from duet_vlm.demo.evaluate import HELD_OUT_SEED, VALIDATION_SEED, interval
    from duet_vlm.demo.evaluate import evaluate as measure
    from duet_vlm.demo.model import load

    loaded, processor = load(None if model == DEMO else model)
    console, seed = Console(stderr=json_file == STDOUT), VALIDATION_SEED if validation else HELD_OUT_SEED
    with Progress(console=console) as progress:
        if ablations or keep:
            chosen = tables.budgets(loaded, keep) if keep else tables.settings(loaded)
            task = progress.add_task("settings", total=len(chosen))
            done = lambda *_: progress.advance(task)  # noqa: E731
            results = tables.ablations(loaded, processor, limit, seed, done, chosen)
        else:
            task = progress.add_task("questions", total=limit)
            count = lambda n: progress.advance(task, n)  # noqa: E731
            results = {"full": measure(loaded, processor, limit, seed, advance=count)}
    name, first = next(iter(results.items()))
    asked = f"{first['questions']} {'validation' if validation else 'held-out'} questions"
    table = Table("skill", "accuracy", "95% interval", "questions", title=f"{asked}, {name} visual tokens")
    for skill, row in first["skills"].items():
        table.add_row(skill, f"{row['accuracy']:.1%}", f"{row['low']:.1%} to {row['high']:.1%}", str(row["questions"]))
    table.add_row("all", f"{first['accuracy']:.1%}", "", str(first["questions"]))
    console.print(table)
    if ablations or keep:
        table = Table("setting", "accuracy", "95% interval", title="visual tokens dropped or selected")
        for name, result in results.items():
            low, high = interval(round(result["accuracy"] * result["questions"]), result["questions"])
            table.add_row(name, f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}")
        console.print(table)
    terminal.write_json(results if ablations or keep else first, json_file)


def check_ending(file: Path) -> None:
    """Raises DuetError for a name that tells no format of a picture that can be written."""
    from PIL import Image

    kind = Image.registered_extensions().get(file.suffix.lower())
    if kind not in Image.SAVE:
        raise DuetError(f"{str(file)!r} tells no format of a picture: give a name that ends in .png, .jpg or .webp.")
