"""The rows of the methods: found without torch, true to what the functions do, and what docs/methods.md says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor

from duet_vlm import DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.config import registry
from duet_vlm.config.methods import names
from duet_vlm.config.registry import RANKINGS, SCHEDULES, STAGE1, Ranking, Schedule, Stage1Method, at_encoder
from duet_vlm.stage1 import Encoded, Merge
from duet_vlm.stage1.options import discards

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def test_rows_are_read_without_torch_and_are_those_of_the_files() -> None:
    code = "import sys, duet_vlm.config.registry as r; assert r.STAGE1 and r.RANKINGS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    found: list[Any] = []
    for folder in ("stage1", "stage2"):
        for file in sorted(Path(registry.__file__).parents[1].joinpath(folder).glob("[a-z]*.py")):
            module = import_module(f"duet_vlm.{folder}.{file.stem}")
            rows = [v for v in vars(module).values() if isinstance(v, (Stage1Method, Ranking, Schedule))]
            for row in rows:
                if not isinstance(row, Schedule):
                    assert getattr(module, row.name) is row_of(row).load()
                    row = replace(row, function=f"{module.__name__}:{row.name}")
                assert row == row_of(row)
            found += rows
    assert len(found) == len(STAGE1) + len(RANKINGS) + len(SCHEDULES)


def row_of(row: Any) -> Any:
    table: Any = {Stage1Method: STAGE1, Ranking: RANKINGS, Schedule: SCHEDULES}[type(row)]
    return table[row.name]


def test_a_file_in_the_folder_is_enough(tmp_path: Path) -> None:
    """A row as it would stand in a new file, whatever else is there."""
    text = (
        "import torch\nfrom ..config.registry import Stage1Method\n\nOTHER = 5\n"
        "METHOD = Stage1Method(name='new', contextual='1/4', needs=('scores',))\n\ndef new(*a):\n    return None\n"
    )
    (row,) = registry.rows_of(text, "somewhere.new")
    assert row == Stage1Method(name="new", contextual="1/4", needs=("scores",), function="somewhere.new:new")


GRID = (5, 8)


def encoded(seed: int, frames: int = 1) -> Encoded:
    """An image, or a video of the same tokens in frames that are alike."""
    generator = torch.Generator().manual_seed(seed)
    scores, keys, features = (torch.rand(1, 40, *more, generator=generator) for more in ((), (5,), (6,)))
    if frames > 1:
        features = features[:, : 40 // frames].repeat(1, frames, 1) + 0.2 * features
        return Encoded(scores, keys - 0.5, features - 0.6, (2, 20 // frames), frames)
    return Encoded(scores, keys - 0.5, features - 0.5, GRID)


def shown(name: str) -> list[int]:
    """Frames of what a method is tried on."""
    return [1, 4] if STAGE1[name].whole_videos else [1]


def decided(merge: Merge) -> list[Any]:
    weights: Tensor | None = merge.weights
    return [x.tolist() for x in (merge.dominant, merge.anchors, merge.members, merge.joins)] + [
        None if weights is None else weights.tolist()
    ]


@pytest.mark.parametrize("name", at_encoder())
def test_a_row_says_what_decides(name: str) -> None:
    """Anything else can be of another image; what is named cannot."""
    row, method, found = STAGE1[name], STAGE1[name].load(), set[str]()
    torch.manual_seed(0)
    for frames in shown(name):
        one, other = encoded(0, frames), encoded(1, frames)
        other.grid = (8, 5) if frames == 1 else (5, 2)
        here = decided(method(one, 9, 3, 4))
        for part in ("scores", "keys", "features", "grid"):
            mixed = replace(one, **{part: getattr(other, part)})
            if decided(method(mixed, 9, 3, 4)) != here:
                found.add(part)
    assert found == set(row.needs)


@pytest.mark.parametrize("name", at_encoder())
@pytest.mark.parametrize(("contextual", "width"), [(0, 4), (3, 1), (3, 4)])
def test_a_row_says_what_is_averaged_discarded_and_best_by_score(name: str, contextual: int, width: int) -> None:
    row, image = STAGE1[name], encoded(0, shown(name)[-1])
    found = row.load()(image, 12 - contextual, contextual, width)
    config = DuetConfig(12 - contextual, contextual, cluster_width=width, merging=name)
    averages = {"always": True, "never": False, "contextual": contextual > 0, "pool": contextual > 0 and width > 1}
    assert bool((found.sizes > 1).any()) == averages[row.averages]
    if averages[row.averages]:
        assert replace(config, proportional=True).proportional
    else:
        with pytest.raises(ValueError, match="this config merges none"):
            replace(config, proportional=True)
    if contextual:
        assert discards(found) == row.discards
    best = image.scores[0].argsort(descending=True)[: 12 - contextual].tolist()
    assert (set(best) <= set(found.places[0].tolist())) == row.scored


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of docs/methods.md, without its head."""
    lines = DOCS.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    end = next((i for i, line in enumerate(lines) if line.startswith("|") and not lines[i + 1].startswith("|")), 0)
    rows = [line for line in lines[: end + 1] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[2:]]


def same_paper(cell: str, paper: str) -> None:
    assert (f"arXiv {paper}" in cell) if paper else ("arXiv" not in cell)


def test_the_table_of_stage_1_says_what_the_rows_say() -> None:
    rows = table("Stage 1: at the encoder")
    assert [cells[0] for cells in rows] == [f"`{name}`" for name in STAGE1]
    for (_, paper, _, needs, split), row in zip(rows, STAGE1.values(), strict=True):
        same_paper(paper, row.paper)
        assert needs == (", ".join(row.needs) if row.at == "encoder" else "before the encoder")
        share = Fraction(row.contextual)
        whole = f"{share.denominator - share.numerator} : {share.numerator}" if share else "all : 0"
        assert split == (whole if row.at == "encoder" else "")


def test_the_table_of_stage_2_says_what_the_rows_say() -> None:
    rows = table("Stage 2: inside the language model")
    assert [cells[0] for cells in rows] == [f"`{name}`" for name in SCHEDULES]
    for (_, paper, ranking, query, layers, ratios), row in zip(rows, SCHEDULES.values(), strict=True):
        same_paper(paper, row.paper)
        assert ranking.startswith(f"`{row.ranking}`") and query == f"`{row.query}`"
        if row.nearest:
            depths = [Fraction(where) * 32 for where in row.ratios]
            assert layers == ", ".join(map(str, depths)) + " of 32, scaled"
        else:
            assert layers == ", ".join(str(w).replace("1/", "L/").replace("3/", "3L/") for w in row.ratios)
        own = [ratio for ratio in row.ratios.values() if ratio is not None]
        wanted = ", ".join(f"{ratio:g}" for ratio in own) if own else "0.5, 0 (Qwen family: 0.5, 0.25)"
        assert ratios == wanted


def test_the_options_in_the_docs_name_every_method_that_has_them() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for option, known in (
        ("diverse=True", [row.name for row in STAGE1.values() if row.scored]),
        ("rest=True", [row.name for row in STAGE1.values() if row.discards]),
        ("debias=True", [row.name for row in RANKINGS.values() if row.debias]),
        ("ranking=", list(RANKINGS)),
    ):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{option}`")]
        listed = ", ".join(f"`{name}`" for name in known)
        assert listed in line.replace(" or ", ", "), option


def test_help_lists_every_method() -> None:
    command: Any = typer.main.get_command(app)
    (method,) = [option for option in command.commands["run"].params if option.name == "method"]
    listed = method.help.split("; ")[0].removeprefix("The method: ").split(", ")
    assert listed == [name for name in names() if name != "none"]
