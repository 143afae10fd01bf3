"""One style in every command: what an option is called, takes and shows; options from files; completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from saved import photo, save
from typer.main import get_command
from typer.testing import CliRunner

from duet_vlm.cli.main import app
from duet_vlm.config.methods import names

COMMANDS = [
    "run",
    "budget",
    "bench",
    "eval",
    "batch",
    "check",
    "serve",
    "train",
    "demo scene",
    "demo eval",
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    save(folder / "model")
    photo(folder / "photo.png")
    return folder


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def page(command: str) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    return str(result.stdout)


def options_of(command: str) -> dict[str, Any]:
    found: Any = get_command(app)
    for word in command.split():
        found = found.commands[word]
    return {name: option for option in found.params for name in option.opts}


def test_options_of_one_kind_have_one_name_and_one_look() -> None:
    seen: dict[str, set[str]] = {}
    for command in COMMANDS:
        for name, option in options_of(command).items():
            if option.param_type_name == "option" and not (command == "train" and name == "--config"):
                seen.setdefault(name, set()).add(str(option.metavar).removesuffix("..."))
    for name in ("--json", "--method", "--tokens", "--keep", "--dtype", "--device", "--threads", "--config"):
        assert len(seen[name]) == 1, (name, seen[name])
    assert not {"--methods", "--budget", "--budgets"} & set(seen)
    for command in ("run", "bench", "eval", "batch", "check"):
        assert {"--threads", "--json", "--config", "--method", "--model"} <= set(options_of(command))
    for command in ("budget",):
        assert "--json" in options_of(command)
    assert {"--threads", "--config", "--method", "--model", "--tokens", "--keep"} <= set(options_of("serve"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_readable(command: str) -> None:
    text = page(command)
    assert not re.findall(".*(?:<(?!=)|{).*", text)
    assert max(map(len, text.splitlines())) <= 80
    defaults = [o for o in options_of(command).values() if isinstance(o.default, (int, float, str)) and not o.is_flag]
    shown = " ".join(text.split())
    for option in defaults:
        assert f"default: {option.default}" in shown, option.name


def test_help_lists_every_method() -> None:
    for command in ("run", "budget", "bench", "eval", "batch", "check", "serve"):
        words = page(command).replace(",", " ").replace(";", " ").split()
        assert set(names()) <= set(words)


@pytest.mark.parametrize("command", ["", "run", "budget", "bench", "eval", "batch", "check", "serve", "train"])
def test_examples_are_commands(command: str) -> None:
    """Lines that go on end in a backslash, options stay beside their values, and each example is understood."""
    examples = re.findall(r"^ +duet (?:.*\\\n)*.*$", page(command), re.MULTILINE)
    assert examples
    for example in examples:
        words = re.sub(r"\\\n\s*", "", example).split()
        called = words[1]
        for word in words[2:]:
            assert not word.startswith("--") or word in options_of(called), word


def test_several_values_stand_behind_one_name_in_every_command() -> None:
    common = ("budget", "--shape", "llava-1.5-7b", "--json", "-")
    spellings = [
        ("--tokens", 192, 64, "--method", "duet", "fastv"),
        ("--tokens", 192, "--tokens", 64, "--methods", "duet", "fastv"),
        ("--tokens=192", 64, "--method", "duet", "--method=fastv"),
    ]
    first, *others = (json.loads(duet(*common, *more).stdout) for more in spellings)
    assert len(first["budgets"]) == 4 and all(other == first for other in others)
    for command in ("bench", "eval", "budget"):
        assert all(options_of(command)[name].multiple for name in ("--tokens", "--keep", "--method"))
    for command in ("run", "batch", "check"):
        assert not any(options_of(command)[name].multiple for name in ("--tokens", "--keep", "--method"))


def test_an_option_file_is_a_command_line(here: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"file: {here / 'photo.png'}\nask: What is it?\nmodel: {here / 'model'}\nkeep: 0.5\nmax-new-tokens: 2\n"
        "compare: true\ntokens:\n"
    )
    whole = json.loads(duet("run", "--config", file, "--json", "-").stdout)
    assert whole["settings"] == "duet, --keep 0.5" and whole["new_tokens"] == 2 and "uncompressed" in whole
    # the command line goes before it, and its budget puts the file's aside
    mine = json.loads(duet("run", f"--config={file}", "--tokens", 60, "--max-new-tokens", 1, "--json", "-").stdout)
    assert mine["settings"] == "duet, --tokens 60" and mine["new_tokens"] == 1
    listed = tmp_path / "budget.json"
    listed.write_text(json.dumps({"shape": "llava-1.5-7b", "tokens": [192, 64], "method": "duet", "text_tokens": 9}))
    report = json.loads(duet("budget", "--config", listed, "--json", "-").stdout)
    assert [b["text_tokens"] for b in report["budgets"]] == [9, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("token: 3", "'token' is no option of duet bench: did you mean tokens?"),
        ("zzz: 3", "'zzz' is no option of duet bench: choose from model, shape, layers,"),
        ("- 3", "holds no options: write one a line, as in 'tokens: [192, 64]'."),
        ("{a: ", "is neither YAML nor JSON ("),
        (None, "does not exist: give a YAML or JSON file of options."),
    ],
)
def test_option_files_that_cannot_be(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "options.yaml"
    if text is not None:
        file.write_text(text)
    result = duet("bench", "--config", file)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert result.stderr.startswith("duet: ") and result.stderr.count("\n") == 1


def test_completion_is_offered() -> None:
    assert "--install-completion" in page("") and "--show-completion" in page("")
    method = options_of("run")["--method"]
    completed = subprocess.run(
        [sys.executable, "-m", "duet_vlm"], capture_output=True, text=True,
        env={"_DUET_COMPLETE": "complete_bash", "COMP_WORDS": "duet run --method vis", "COMP_CWORD": "3", **os.environ},
    )  # fmt: skip
    assert method is not None and completed.stdout.split() == ["visionzip"], completed
