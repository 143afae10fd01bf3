"""Every public name is explained: the package's, the commands', the recipes', the entry points'."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import duet_vlm
from duet_vlm.cli.main import app
from recipes.demo.commands import app as recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "src/duet_vlm/demo/weights/README.md"]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
CODE = "\n".join(block or span for block, span in re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", TEXT, re.S))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(what is typed, command) of every command below a group."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        elif not command.hidden:
            yield f"{name} {word}", command


COMMANDS = dict(commands(typer.main.get_command(app), "duet"))
RECIPES = dict(commands(typer.main.get_command(recipe), "python -m recipes.demo"))


def in_code(words: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", CODE) is not None


@pytest.mark.parametrize("name", [name for name in duet_vlm.__all__ if not name.startswith("_")])
def test_a_public_name_is_documented(name: str) -> None:
    assert in_code(name), f"no page of docs/ shows {name} in code"
    assert (getattr(duet_vlm, name).__doc__ or "").strip()


@pytest.mark.parametrize("typed", [*COMMANDS, *RECIPES])
def test_a_command_is_documented(typed: str) -> None:
    assert in_code(typed), f"no page of docs/ shows {typed}"


@pytest.mark.parametrize("typed", [*COMMANDS, *RECIPES])
def test_every_option_says_what_it_does(typed: str) -> None:
    command = (COMMANDS | RECIPES)[typed]
    assert command.help
    unexplained = [p.name for p in command.params if not p.hidden and not p.help]
    assert unexplained == []


@pytest.mark.parametrize(
    "name", [*PROJECT["scripts"], *(n for group in PROJECT["entry-points"].values() for n in group)]
)
def test_an_entry_point_is_documented(name: str) -> None:
    assert in_code(name)


def test_the_surface_is_what_it_was() -> None:
    # a name that goes is announced first: docs/versions.md
    assert {"Drop", "Duet", "DuetConfig", "DuetError", "Trace", "apply", "check", "handle_of"} <= set(duet_vlm.__all__)
    assert set(duet_vlm.__all__) <= set(dir(duet_vlm))
    assert {"duet run", "duet budget", "duet bench", "duet eval", "duet train", "duet check"} <= set(COMMANDS)
    assert {"duet demo scene", "duet demo eval"} <= set(COMMANDS)


def test_every_dependency_and_extra_has_its_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("|")]
    explained = set(re.findall(r"[\w-]+", " ".join(rows)))
    required = {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
    assert required | set(PROJECT["optional-dependencies"]) - {"test"} <= explained


def test_completion_offers_what_is_public_and_nothing_else() -> None:
    assert [name for name in dir(duet_vlm) if not name.startswith("_")] == sorted({*duet_vlm.__all__} - {"__version__"})
