"""Documentation that runs: the examples of public docstrings, and the Python blocks of README and docs."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import duet_vlm

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def module_at(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


API = module_at(ROOT / "docs" / "make_api.py")
PUBLIC = {name: thing for name, thing in API.NAMES.items() if name.startswith("duet_vlm.")}
PARTS = [thing for name, thing in API.NAMES.items() if name not in PUBLIC]  # what public names give back


def test_the_api_page_has_every_public_name_as_its_docstring_is() -> None:
    exported = {f"duet_vlm.{name}" for name in duet_vlm.__all__ if name != "__version__"}
    assert exported <= set(API.NAMES), "name what is new in docs/make_api.py"
    assert API.PAGE.read_text(encoding="utf-8") == API.page(), "write the page again: python docs/make_api.py"


def examples(thing: Any, name: str) -> list[doctest.DocTest]:
    """The doctests of a public name and of its own members."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(thing, name, module=False, globs={}) if test.examples]


def members(cls: type) -> dict[str, Any]:
    """The public methods and properties of a class, inherited ones of this package included."""
    found = {}
    for owner in cls.__mro__:
        if owner.__module__.startswith("duet_vlm."):
            for name, member in vars(owner).items():
                if not name.startswith("_") and (callable(member) or isinstance(member, (property, classmethod))):
                    found.setdefault(name, member)
    return found


@pytest.mark.engine
@pytest.mark.usefixtures("own_methods")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_every_public_name_runs(name: str) -> None:
    found = examples(PUBLIC[name], name)
    assert found, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    for test in found:
        runner.run(test, out=sys.stderr.write)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_takes_gives_and_refuses(name: str) -> None:
    thing = PUBLIC[name]
    doc = inspect.getdoc(thing)
    assert doc and doc.splitlines()[0].endswith(".")
    if inspect.isfunction(thing):
        described(name, doc, thing)
        assert "Returns:" in doc
    for member, method in (members(thing) if isinstance(thing, type) else {}).items():
        text = inspect.getdoc(method)
        assert text and text.splitlines()[0].endswith("."), f"{name}.{member} is not described"
        function = getattr(method, "__func__", method)
        if inspect.isfunction(function):
            described(f"{name}.{member}", text, function)


def described(name: str, doc: str, function: Any) -> None:
    wanted = [p for p in inspect.signature(function).parameters if p not in ("self", "cls", "_")]
    if function.__name__ == "of":  # made from the engine's own state, by the engine
        return
    for parameter in wanted:
        assert re.search(rf"^ +{parameter}: ", doc, re.MULTILINE), f"{name} does not describe {parameter}"


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_what_is_given_back_is_described(part: type) -> None:
    doc = inspect.getdoc(part) or ""
    for name in part.__dataclass_fields__:  # type: ignore[attr-defined]
        assert re.search(rf"^ +{name}: ", doc, re.MULTILINE), f"{part.__name__}.{name} is not described"


def test_every_setting_is_described() -> None:
    for cls in (duet_vlm.DuetConfig, duet_vlm.Drop):
        for name in cls.__dataclass_fields__:
            assert re.search(rf"^ +{name}: ", inspect.getdoc(cls) or "", re.MULTILINE), f"{name} is not described"


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, text) of every fenced block of a language."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT).as_posix()}:{line}", match.group(1)))
    return found


PYTHON = blocks("python")
LOADS = re.compile(r"from duet_vlm\.demo\.model import load|shape_config|^DuetConfig\(", re.MULTILINE)
LONG = "make_records(900)"  # an evaluation of 900 questions


def test_the_pages_have_python_blocks() -> None:
    assert len(PYTHON) >= 6
    assert sum(bool(LOADS.search(code)) for _, code in PYTHON) >= 4


@pytest.mark.parametrize(("where", "code"), PYTHON, ids=[where for where, _ in PYTHON])
def test_what_python_blocks_import_and_name_exists(where: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("duet_vlm"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), f"{where}: {ast.unparse(node)}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "duet_vlm":
            assert hasattr(duet_vlm, node.attr), f"{where}: duet_vlm.{node.attr}"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("where", "code"),
    [(where, code) for where, code in PYTHON if LOADS.search(code) and LONG not in code],
    ids=[where for where, code in PYTHON if LOADS.search(code) and LONG not in code],
)
def test_python_blocks_that_need_nothing_run_as_printed(
    where: str, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comment behind print(...) is what it prints; one that begins with three dots gives the end of it."""
    monkeypatch.chdir(ROOT)
    exec(compile(code, where, "exec"), {})
    told = re.findall(r"^ *print\(.*\) +# (.+)$", code, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(told) or not told
    for line, expected in zip(printed, told, strict=False):
        expected = expected.split("  #")[0]
        if expected.startswith("... "):
            assert line.endswith(expected[4:]), (line, expected)
        elif re.fullmatch(r"0\.\d+", expected):
            assert round(float(line), len(expected) - 2) == float(expected)
        else:
            assert line == expected


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, broken


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_list_of_pages_has_every_page() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in listed, f"docs/README.md does not list {page.name}"


def test_no_page_names_a_module_that_is_gone() -> None:
    for page in PAGES:
        for dotted in re.findall(r"`(duet_vlm(?:\.\w+)+)", page.read_text(encoding="utf-8")):
            group = dotted == "duet_vlm.methods"  # of entry points
            assert group or resolves(dotted), f"{page.name} names {dotted}"


def resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for name in parts[size:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
