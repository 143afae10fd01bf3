"""What `duet eval` leaves out or refuses: bad lines of a manifest, bad options, a folder of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_cases import QUESTIONS, duet, nine_questions, options, write
from typer.testing import CliRunner

from duet_vlm.cli.main import app


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nine_questions(tmp_path_factory.mktemp("eval"))


def bad(here: Path, folder: Path) -> Path:
    """Two good lines, one no JSON, a missing picture, an unknown metric, an id twice, a damaged picture, a video."""
    good = {"image": str(here / "a.png"), "question": QUESTIONS[0], "answer": "red"}
    (folder / "half.png").write_bytes((here / "a.png").read_bytes()[:300])
    (folder / "clip.mp4").write_bytes(b"no video")
    return write(
        folder / "bad.jsonl",
        [
            good | {"id": "one"}, "{no json", good | {"image": "no.png"}, good | {"metric": "bleu"},
            good | {"id": "one"}, good | {"image": "half.png"},
            {"video": "clip.mp4", "question": "why ?", "answer": "so"}, good | {"id": "two"},
        ],
    )  # fmt: skip


def test_bad_records_are_reported_with_their_line_and_the_rest_is_scored(here: Path, tmp_path: Path) -> None:
    arguments = options(here, tmp_path / "out", "--data", bad(here, tmp_path))
    arguments[arguments.index("random")] = "magic"
    result = duet(*arguments)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["questions"] == 2 and all(run["n"] == 2 for run in results["runs"])
    assert {one["line"] for one in results["skipped"]} == {None, 2, 3, 4, 5, 6, 7}
    assert "Not evaluated: 6 of 8 records and 1 method at a budget; see results.json." in result.stdout
    for text in ("method 'magic' is unknown", "line 2: this is not JSON", "line 5: id 'one' was used in line 1"):
        assert text in result.stderr
    reasons = {one["line"]: one["reason"] for one in results["skipped"]}
    assert "truncated or damaged" in reasons[6]


@pytest.mark.parametrize("line", [None, 6])
def test_strict_stops(here: Path, tmp_path: Path, line: int | None) -> None:
    file = bad(here, tmp_path)
    if line is not None:
        write(file, [file.read_text().splitlines()[i] for i in (0, line - 1)])
    result = duet(*options(here, tmp_path / "out", "--data", file, "--strict"))
    assert result.exit_code == 2 and "(--strict stops here)" in result.stderr, result.output
    assert ("line 2: this is not JSON" if line is None else "line 2: image ") in result.stderr
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tokens", "60"], "are both a budget: give one of them."),
        (["--coverage", "0.9"], "are both a budget: give one of them."),
        (["--data", "none.jsonl"], "manifest 'none.jsonl' does not exist: give a JSONL file, 'demo' or 'pages'."),
        (["--model", "./nowhere"], "is no folder"),
        (["--dtype", "int3"], "dtype 'int3' is unknown"),
        (["--method", "magic"], "method 'magic' is unknown"),
    ],
)
def test_bad_options_of_eval_are_refused_and_nothing_is_written(
    here: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    arguments = options(here, tmp_path / "out", *more)
    if more[0] == "--method":
        del arguments[4:8]
    result = duet(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert not (tmp_path / "out").exists()


def test_help_shows_how() -> None:
    result = CliRunner().invoke(app, ["eval", "--help"])
    assert result.exit_code == 0 and "duet eval --method none duet" in result.stdout
