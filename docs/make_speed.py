"""Write the table of families into docs/speed.md from results/bench/families: python docs/make_speed.py.

A test holds the page to the raw figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from page_tables import Table

RAW = Path(__file__).parents[1] / "results" / "bench" / "families"
HEAD = """| shape, layers | visual tokens | stock | keep | faster | by FLOPs | share of ideal | ranking, of a layer |
|---|---|---|---|---|---|---|---|
"""


def table() -> str:
    """One row a shape and budget."""
    return HEAD + "".join(_rows(json.loads(file.read_text(encoding="utf-8"))) for file in sorted(RAW.glob("*.json")))


def _rows(report: dict[str, Any]) -> str:
    stock = report["stock"]
    first = (
        f"`{report['model']}`, {report['options']['layers']} | {stock['tokens_in']} | {stock['prefill_ms'] / 1e3:.2f} s"
    )
    return "".join(
        f"| {first if i == 0 else ' | | '} | {row['keep']} | {row['prefill_speedup']:.2f}x | {row['flops_ratio']:.2f}x "
        f"| {row['share']:.2f} | {row['ranking_over_layer']:.0%} |\n"
        for i, row in enumerate(report["settings"])
    )


TABLE = Table(__file__, "speed.md", table)

if __name__ == "__main__":
    TABLE.write()
