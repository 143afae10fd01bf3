"""The table of what a budget saves is what published configs say, and that of families' speed what was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def savings() -> Any:
    return script("make_savings")


def test_the_table_of_savings_is_current(savings: Any) -> None:
    assert savings.PAGE.read_text(encoding="utf-8") == savings.page(), "write it again: python docs/make_savings.py"


def test_the_table_of_speed_is_current() -> None:
    speed = script("make_speed")
    assert speed.PAGE.read_text(encoding="utf-8") == speed.page(), "write it again: python docs/make_speed.py"


@pytest.mark.parametrize(("kind", "visual", "kept"), [("llava", 576, (192, 64)), ("qwen3_vl", 880, (290.4, 96.8))])
def test_keys_and_values_shrink_as_tokens_do(savings: Any, kind: str, visual: int, kept: tuple[float, float]) -> None:
    """What is kept of them is the share of the tokens, visual and text, that an average layer works on."""
    (row,) = [line for line in savings.table().splitlines() if line.startswith(f"| `{kind}` |")]
    saved = [float(number.strip(" %")) / 100 for number in row.split("|")[-2].split(",")]
    for share, tokens in zip(saved, kept, strict=True):
        assert share == pytest.approx(1 - (tokens + 64) / (visual + 64), abs=0.02)
