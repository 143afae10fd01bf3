"""Methods that a user registers: by name in presets, budgets and commands, from a plug-in too; refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from hostile import VALUES, one_sentence
from own_methods import longest, spread
from saved import photo, save

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config import registry

PLUGIN = """
import duet_vlm
from duet_vlm.stage1 import selected

def longest(encoded, dominant, contextual, cluster_width):
    best = encoded.features.norm(dim=-1).argsort(dim=1, descending=True, stable=True)
    return selected(encoded, best[:, : dominant + contextual])

duet_vlm.register_stage1("longest", longest, paper="2601.00001", discards=True)
"""

pytestmark = pytest.mark.usefixtures("own_methods")


def test_a_schedule_alone_and_the_familys_own_ratios() -> None:
    duet_vlm.register_stage2("early", "attention", ratios={"1/4": None, "1/2": None}, query="last")
    duet_vlm.register_stage2("late", "keynorm", ratios={"1/4": 0.5, "3/4": 0.25}, rank_before=True)
    model = tiny.build()
    early = DuetConfig.preset("duet+early", model=model, tokens=9)
    assert early.drops == (Drop(1, 0.5), Drop(2, 0.0)) and (early.ranking, early.query) == ("attention", "last")
    late = DuetConfig.preset("duet+late", model=model, tokens=9)
    assert late.drops == (Drop(1, 0.5, rank_at=0), Drop(3, 0.25, rank_at=2)) and late.ranking == "keynorm"
    assert "late" not in registry.RANKINGS and {"early", "late"} <= set(registry.SCHEDULES)


def test_a_name_can_be_given_again_but_not_one_of_the_package() -> None:
    duet_vlm.register_stage1("mine", longest)
    duet_vlm.register_stage1("mine", lambda e, k1, k2, w: longest(e, k1, k2, w), contextual="1/4")
    assert registry.STAGE1["mine"].contextual == "1/4"
    for name in ("duet", "fastv", "attention", "downsample", "none", "duet-plus", "saved"):
        for register, function in ((duet_vlm.register_stage1, longest), (duet_vlm.register_stage2, spread)):
            with pytest.raises(DuetError, match=f"method name '{name}' is taken by duet-vlm itself") as error:
                register(name, function)  # type: ignore[operator]
            one_sentence(error)


STAGE1_ARGUMENTS = ("name", "function", "paper", "contextual", "scored", "discards", "averages")

STAGE2_ARGUMENTS = ("name", "ranking", "paper", "ratios", "query", "rank_before", "debias")


@pytest.mark.parametrize("argument", [*(f"1 {a}" for a in STAGE1_ARGUMENTS), *(f"2 {a}" for a in STAGE2_ARGUMENTS)])
def test_any_value_registers_or_is_one_sentence(argument: str) -> None:
    stage, name = argument.split()
    if stage == "1":
        register: Any = duet_vlm.register_stage1
        good: dict[str, Any] = dict(name="mine", function=longest)
    else:
        register, good = duet_vlm.register_stage2, dict(name="mine", ranking=spread)
    values = [
        *VALUES.values(),
        {"3/2": 0.5},
        {"1/0": 0.5},
        {0: 0.5},
        {2: 1.5},
        {2: None, 3: None, 4: None},
        "1/1",
        "a+b",
    ]
    refusals = 0
    for value in values:
        try:
            register(**good | {name: value})
        except ValueError as error:
            one_sentence(error)
            refusals += 1
        else:
            schedule = "mine" if stage == "2" else "duet"
            known = registry.SCHEDULES.get(schedule)
            assert known is None or all(0 < layer < 32 for layer in known.at(32, (0.5, 0.0)))
    assert refusals > len(values) // 2


def plugin(folder: Path, text: str = PLUGIN) -> dict[str, str]:
    """The environment of a command beside an installed package that has an entry point."""
    (folder / "longest_method.py").write_text(text)
    info = folder / "longest_method-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: longest-method\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[duet_vlm.methods]\nlongest = longest_method\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def command(env: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "duet_vlm", *map(str, arguments)]
    return subprocess.run(given, env=env, capture_output=True, text=True)


@pytest.mark.engine
def test_the_commands_find_a_plug_in(tmp_path: Path) -> None:
    env = plugin(tmp_path)
    save(tmp_path / "model")
    photo(tmp_path / "photo.png")
    question = {"id": "q", "image": "photo.png", "question": "what is it ?", "answer": "red"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    common = ["--model", tmp_path / "model", "--device", "cpu", "--max-new-tokens", 2]
    ran = command(env, "run", tmp_path / "photo.png", "--ask", "what is it ?", *common, "--method", "longest+duet",
                  "--keep", 0.25, "--json", "-")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["config"]["merging"] == "longest"
    out = tmp_path / "out"
    found = command(env, "eval", "--data", tmp_path / "questions.jsonl", *common, "--methods", "longest", "--keep",
                    0.25, "--out", out)  # fmt: skip
    assert found.returncode == 0, found.stderr
    runs = json.loads((out / "settings.json").read_text())["runs"]
    assert [(run["method"], run["config"]["merging"]) for run in runs][1] == ("longest", "longest")
    answers = json.loads((out / "results.json").read_text())["runs"]
    assert [(run["method"], run["n"]) for run in answers] == [("none", 1), ("longest", 1)]


def test_a_plug_in_that_cannot_be_loaded(tmp_path: Path) -> None:
    env = plugin(tmp_path, "import nothing_of_that_name")
    found = command(env, "budget", "--shape", "tiny", "--method", "longest", "--keep", 0.5)
    said = found.stderr.splitlines()[-1]
    assert found.returncode == 2 and "Traceback" not in found.stderr, found.stderr
    assert said.startswith("duet: the method plug-in 'longest' (longest_method) cannot be loaded (No module named")
    good = command(env, "budget", "--shape", "tiny", "--method", "duet", "--keep", 0.5)
    assert good.returncode == 0, good.stderr  # nobody asked for it
