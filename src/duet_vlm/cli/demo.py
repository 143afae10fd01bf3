"""`duet demo`: draw a scene with questions, measure the demonstration model's accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import terminal
from ..console.commands import Command, Commands
from ..console.options import JsonFile
from ..errors import DuetError
from ..inputs.files import STDOUT, check_writable, writing
from ..inputs.model_folders import DEMO

Validation = Annotated[
    bool, typer.Option("--validation", help="Ask about the scenes for decisions, not the held-out ones.")
]

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    help="The demonstration model: a LLaVA of 5 M parameters, trained from scratch on drawn scenes. What trained it is "
    "in recipes/demo of the repository.",
)


@app.callback(invoke_without_command=True)
def options(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


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
    check_writable(out, "the scene")
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
    validation: Validation = False,
    json_file: JsonFile = None,
) -> None:
    """Print the accuracy per skill on held-out scenes, with 95% intervals."""
    terminal.check_json(json_file)
    if model != DEMO and not (Path(model) / "config.json").is_file():
        raise DuetError(f"model {model!r} holds no config.json: give the folder of a trained copy.")
    from rich.table import Table

    from duet_vlm.demo.evaluate import evaluate as measure
    from duet_vlm.demo.model import load

    loaded, processor = load(None if model == DEMO else model)
    seed, split = split_of(validation)
    with terminal.progress(limit, "Questions") as bar:
        result = measure(loaded, processor, limit, seed, advance=bar.add)
    heading = f"{result['questions']} {split} questions"
    table = Table("skill", "accuracy", "95% interval", "questions", title=f"{heading}, all visual tokens")
    for skill, row in result["skills"].items():
        table.add_row(skill, f"{row['accuracy']:.1%}", f"{row['low']:.1%} to {row['high']:.1%}", str(row["questions"]))
    table.add_row("all", f"{result['accuracy']:.1%}", "", str(result["questions"]))
    show(table, result, json_file)


def split_of(validation: bool) -> tuple[int, str]:
    """The seed of the scenes that are asked about, and what they are called."""
    from duet_vlm.demo.evaluate import HELD_OUT_SEED, VALIDATION_SEED

    return (VALIDATION_SEED, "validation") if validation else (HELD_OUT_SEED, "held-out")


def show(table: Any, figures: dict[str, Any], json_file: Path | None) -> None:
    """Print a table, on stderr where the figures go to stdout, and write the figures."""
    from rich.console import Console

    Console(stderr=json_file == STDOUT).print(table)
    terminal.write_json(figures, json_file)


def check_ending(file: Path) -> None:
    """Raises DuetError for a name that tells no format of a picture that can be written."""
    from PIL import Image

    kind = Image.registered_extensions().get(file.suffix.lower())
    if kind not in Image.SAVE:
        raise DuetError(f"{str(file)!r} tells no format of a picture: give a name that ends in .png, .jpg or .webp.")
