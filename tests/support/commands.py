"""The `duet` command as tests call it."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from duet_vlm.cli.main import app

ASK = ["--ask", "What color is the square?"]


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def answered(*arguments: Any) -> dict[str, Any]:
    result = duet(*arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def refused(result: Any, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("duet: ") and result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr


def heads(shown: str) -> list[str]:
    """The heads of a table's columns, each over as many lines as it takes."""
    lines = [[cell.strip() for cell in line.strip("┃").split("┃")] for line in shown.splitlines() if "┃" in line]
    return [" ".join(head).strip() for head in zip(*lines, strict=True)]
