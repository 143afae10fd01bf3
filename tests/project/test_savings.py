"""The table of what a budget saves is what published configs say, and that of families' speed what was measured."""

from __future__ import annotations

from types import ModuleType

import make_savings
import make_speed
import page_tables
import pytest


@pytest.mark.parametrize("script", [make_savings, make_speed])
def test_a_table_is_current(script: ModuleType) -> None:
    table: page_tables.Table = script.TABLE
    assert table.written() == table.current(), f"write it again: python docs/{script.__name__}.py"


@pytest.mark.parametrize(("kind", "visual", "kept"), [("llava", 576, (192, 64)), ("qwen3_vl", 880, (290.4, 96.8))])
def test_keys_and_values_shrink_as_tokens_do(kind: str, visual: int, kept: tuple[float, float]) -> None:
    """What is kept of them is the share of the tokens, visual and text, that an average layer works on."""
    (row,) = [line for line in make_savings.table().splitlines() if line.startswith(f"| `{kind}` |")]
    saved = [float(number.strip(" %")) / 100 for number in row.split("|")[-2].split(",")]
    for share, tokens in zip(saved, kept, strict=True):
        assert share == pytest.approx(1 - (tokens + 64) / (visual + 64), abs=0.02)
