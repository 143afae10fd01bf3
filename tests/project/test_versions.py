"""The bounds of pyproject.toml are what is tested: its pins, the environments and the script agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import tiny
from packaging.requirements import Requirement
from packaging.version import Version

import duet_vlm
from duet_vlm import DuetConfig, DuetError, host
from duet_vlm.host import checks

ROOT = Path(__file__).parents[2]


def bounds(name: str) -> Requirement:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (found,) = (one for one in map(Requirement, listed) if one.name == name)
    return found


def lowest(name: str) -> Version:
    return min(Version(spec.version) for spec in bounds(name).specifier if spec.operator == ">=")


def pinned(file: str, name: str) -> Version:
    (found,) = re.findall(rf"^{name}==(\S+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return Version(found)


def test_what_is_pinned_is_within_the_bounds_and_at_their_ends() -> None:
    newest, oldest, tensors = (f"constraints{kind}.txt" for kind in ("", "-oldest", "-tensors"))
    for file in (newest, oldest, tensors):
        for name in ("torch", "transformers"):
            assert pinned(file, name) in bounds(name).specifier, (file, name)
    assert pinned(oldest, "torch") == lowest("torch")
    assert pinned(oldest, "transformers").release[:2] == host.OLDEST
    assert pinned(tensors, "transformers").release[:2] == lowest("transformers").release[:2]
    last = pinned(newest, "transformers").release
    assert Version(f"{last[0]}.{last[1] + 1}") not in bounds("transformers").specifier


def test_ci_runs_every_environment_that_has_pins() -> None:
    script, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile"))
    there = {file.stem.partition("-")[2] for file in ROOT.glob("constraints*.txt")} - {"lmms-eval"}
    assert there == {"", "oldest", "tensors", "vllm"}
    for target in (f"test-{kind}".rstrip("-") for kind in there):
        assert re.search(rf"^make {target}( |$)", script, re.MULTILINE) and re.search(
            rf"^{target}:", makefile, re.MULTILINE
        )


def test_every_file_that_the_environments_run_is_there() -> None:
    lists = re.findall(r"^(?:ENGINE|TENSORS) := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert len(lists) == 2
    for listed in lists:
        ((pattern, names),) = re.findall(r"\$\(patsubst %,(\S+),([\w \\\n\t]+)\)", listed)
        files = re.findall(r"tests/[\w/.]+(?= |\n|$)", listed)
        assert names and files
        for file in [*(pattern.replace("%", name) for name in names.replace("\\", " ").split()), *files]:
            assert (ROOT / file).exists(), file


def test_apply_refuses_a_transformers_that_is_too_old_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build()
    config = DuetConfig.preset("duet", model=model, keep=0.3)
    monkeypatch.setattr(checks.transformers, "__version__", "5.22.9")
    host.check_host.cache_clear()
    with pytest.raises(DuetError, match=r"apply of duet-vlm \S+ needs transformers 5.23 or newer, and 5.22.9"):
        duet_vlm.apply(model, config, tokenizer=tiny.Words())
    monkeypatch.undo()
    host.check_host.cache_clear()
