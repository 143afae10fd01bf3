"""A line that cannot be read is one sentence: the option, its value, and what to do."""

from __future__ import annotations

import pytest
from commands import duet, refused

HOW = "-h shows how."
WRONG = {
    "version": "'version' is no command of duet: "
    "choose one of run, budget, bench, eval, train, tune, check, serve, batch, demo.",
    "demo nothing": "'nothing' is no command of duet demo: choose one of scene, eval.",
    "--nothing": f"duet has no option --nothing: duet {HOW}",
    "run": f"FILE is missing: duet run {HOW}",
    "run a.png": f"--ask is missing: duet run {HOW}",
    "train": f"--config is missing: duet train {HOW}",
    "run a.png --ask": f"option '--ask' requires an argument: duet run {HOW}",
    "run a.png b.png --ask what": f"got unexpected extra argument(s) (b.png): duet run {HOW}",
    "run a.png --ask what --kep 0.3": "duet run has no option --kep: did you mean --keep or --tokens?",
    "run a.png --ask what --keep third": f"--keep 'third' must be a valid number: duet run {HOW}",
    "run a.png --ask what --keep=third": f"--keep 'third' must be a valid number: duet run {HOW}",
    "eval --out out --keep 0.5 third 0.1": f"--keep 'third' must be a valid number: duet eval {HOW}",
    "run a.png --ask what --max-new-tokens 0": "--max-new-tokens '0' must be greater than or equal to 1: duet run -h",
    "eval --out out --limit 2.5": "--limit '2.5' must be a valid integer: duet eval -h shows how.",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_read_is_a_sentence(line: str) -> None:
    refused(duet(*line.split()), f"duet: {WRONG[line]}")


def test_debug_shows_where_it_was_found() -> None:
    result = duet("--debug", "train")
    assert result.exit_code == 2 and "Traceback" in result.stderr
    assert result.stderr.endswith("duet: --config is missing: duet train -h shows how.\n")
