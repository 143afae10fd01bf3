"""What the pages name in code type exists: files, folders, modules, what is in them, tests."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import duet_vlm
from duet_vlm.stage1 import Encoded
from duet_vlm.stage2.ranking import RankingInputs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "duet_vlm"
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
HOMES = (ROOT, PACKAGE, *(folder for folder in PACKAGE.rglob("*") if folder.is_dir()), ROOT / "tests")
FILES = [file for top in ("src", "tests", "recipes", "docs") for file in (ROOT / top).rglob("*.py")]
MODULES = [file for file in FILES if PACKAGE in file.parents or file.parent.name == "support"]
ELSEWHERE = ("build/", "OUTPUT/")  # where a command writes
# what a page calls an object, where a module has that name too
OBJECTS = {
    "encoded": {field.name for field in fields(Encoded)},
    "model": {"base_model"},
    "handle": {*dir(duet_vlm.Duet)},
    "inputs": {field.name for field in fields(RankingInputs)},
}


def named(page: Path, pattern: str) -> list[str]:
    """What a page has in code type, in this form and outside of blocks of code; no name that stands for many."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [name for name in re.findall(rf"`({pattern})`", text) if "..." not in name and "NAME" not in name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_exist(page: Path) -> None:
    for name in named(page, r"[\w./-]+(?:/|\.py|\.txt|\.toml|\.md)"):
        if not name.startswith(ELSEWHERE):
            there = any((home / name).exists() for home in HOMES) or any(file.name == name for file in FILES)
            assert there, f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_in_a_module_exists(page: Path) -> None:
    for name in named(page, r"\w+\.\w+"):
        module, _, thing = name.partition(".")
        homes = [file for file in MODULES if file.stem == module]
        if homes and thing not in ("py", "json", "jsonl", "html", "md"):
            there = thing in OBJECTS.get(module, ()) or any(has(file, thing) for file in homes)
            assert there, f"{page.name} names {name}"


def has(file: Path, thing: str) -> bool:
    """Whether a module's own text gives it the name; it is not imported, as some modules need other packages."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if thing in (getattr(statement, "name", None), *(getattr(target, "id", None) for target in targets)):
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_exist(page: Path) -> None:
    tests = {name for file in FILES for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))}
    assert not set(named(page, r"test_\w+")) - tests


def rooms() -> set[str]:
    return {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}


def test_the_table_of_rooms_has_every_folder() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert {name.rstrip("/") for name in re.findall(r"^\| `(\w+/)` \|", design, re.MULTILINE)} == rooms()


def test_the_order_of_the_folders_is_that_of_the_contract() -> None:
    listed = re.search(
        r"From the top:\n(.*?)\. `pyproject", (ROOT / "AGENTS.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert listed is not None
    order = [set(re.findall(r"`(\w+)(?:\.py)?`", layer)) for layer in listed[1].split(";")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert order == [{name.strip() for name in re.split(r"[|:]", layer)} for layer in layers if layer != "__main__"]
    assert rooms() <= set().union(*order)
