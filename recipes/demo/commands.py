"""`python -m recipes.demo`: train the demonstration model, measure a training step, measure budgets and ablations."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from duet_vlm.cli.demo import Validation, show, split_of
from duet_vlm.console import terminal
from duet_vlm.console.commands import DEBUG, Command, Commands
from duet_vlm.console.options import JsonFile
from duet_vlm.errors import DuetError
from duet_vlm.inputs.files import check_writable_folder

ModelFolder = Annotated[Path, typer.Option(help="Folder for the model (a from_pretrained folder) and its checkpoints.")]
StepsScale = Annotated[
    float, typer.Option(min=0.0001, help="Multiply the number of training steps; 1 is the shipped recipe.")
]
Processes = Annotated[
    int, typer.Option(min=1, max=8, help="Training processes, one core each; 2 is the shipped recipe.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in OUT.")]

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How the demonstration model was made: its training from scratch, and the tables of its model card.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show where an error comes from.")] = False,
) -> None:
    """How the demonstration model was made: its training from scratch, and the tables of its model card."""


@app.command(cls=Command)
def train(
    out: ModelFolder,
    steps_scale: StepsScale = 1.0,
    processes: Processes = 2,
    resume: Resume = False,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Fuse decoder blocks; by default when g++ is there."),
    ] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(min=0.02, max=1, help="Compress in the last stage: budget as a fraction; several take turns."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Run the last stage only, from this checkpoint (few.pt)."),
    ] = None,
) -> None:
    """Train the demonstration model from scratch (about two hours on two cores), or resume.

    Three stages: vision, warm-up with attention hints, full. Checkpoints are written every 100 steps; progress and
    accuracies go to the terminal and to OUT/checkpoints/*.jsonl. A folder that was trained in before is refused without
    --resume.
    """
    check_writable_folder(out, "the model")
    if start is not None and not start.is_file():
        raise DuetError(f"checkpoint {str(start)!r} is no file: give the few.pt of an earlier training.")
    from . import training

    recipe = replace(training.Recipe(), keeps=tuple(keep)) if keep else training.Recipe()
    try:
        training.train(out, recipe.scaled(steps_scale), processes, resume, compiled, start)
    except KeyboardInterrupt as error:
        print("duet: stopped; go on from the last checkpoint with --resume.", file=sys.stderr)
        raise typer.Exit(130) from error
    typer.echo(f"Saved the model in {out}. Measure it with: duet demo eval --model {out}")


@app.command("train-time", cls=Command)
def train_time(
    keep: Annotated[list[float], typer.Option(min=0.02, max=0.99, help="Budgets, as fractions.")] = [0.33, 0.22, 0.11],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each, in turn, after two for warming up.")] = 8,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes per step; 8 per process is the shipped recipe.")] = 8,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Fuse decoder blocks; needs g++.")] = True,
    json_file: JsonFile = None,
) -> None:
    """Measure what a training step costs with and without compression, next to what its operations say."""
    terminal.check_json(json_file)
    from rich.table import Table

    from . import timing

    results = timing.measure(keep, scenes, rounds, compiled)
    table = Table("visual tokens", "CPU seconds", "time", "operations", title="forward and backward of a training step")
    for name, row in results["budgets"].items():
        table.add_row(name, f"{row['cpu_seconds']:.3f}", f"{row['time_ratio']:.1%}", f"{row['flops_ratio']:.1%}")
    show(table, results, json_file)


@app.command(cls=Command)
def ablations(
    limit: Annotated[int, typer.Option(min=9, help="Number of questions, an equal share per skill.")] = 5000,
    model: Annotated[Path | None, typer.Option(help="Folder of another copy of the model.")] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(min=0.02, max=1, help="Measure at this budget instead, a fraction; may be given several times."),
    ] = None,
    validation: Validation = False,
    json_file: JsonFile = None,
) -> None:
    """Print the accuracy with all visual tokens dropped at each layer and with 11% of them selected, or by budget."""
    terminal.check_json(json_file)
    from rich.table import Table

    from duet_vlm.demo.evaluate import interval
    from duet_vlm.demo.model import load

    from . import ablations as tables

    loaded, processor = load(model)
    seed, split = split_of(validation)
    chosen = tables.budgets(loaded, keep) if keep else tables.settings(loaded)
    with terminal.progress(len(chosen), "Settings") as bar:
        results = tables.ablations(loaded, processor, limit, seed, lambda *_: bar.add(), chosen)
    questions = f"{next(iter(results.values()))['questions']} {split} questions"
    table = Table("setting", "accuracy", "95% interval", title=f"{questions}, visual tokens dropped or selected")
    for name, result in results.items():
        low, high = interval(round(result["accuracy"] * result["questions"]), result["questions"])
        table.add_row(name, f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}")
    show(table, results, json_file)
