"""The figures as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ...console.tables import medians, setting_name, several


def serving_table(report: dict[str, Any]) -> Table:
    """One column per setting, stock first; a section per concurrency."""
    stock, rows, options, machine = report["stock"], report["settings"], report["options"], report["hardware"]
    table = Table(
        title=f"{report['model']} in vLLM {report['versions']['vllm']}, {options['layers']} decoder layers, "
        f"{options['dtype']}, {options['text_tokens']} text tokens, answers of {options['decode_steps'] + 1} tokens, "
        f"{medians(options['runs'])}",
        caption=f"{machine.get('gpu', machine['cpu'])}, {several(machine['threads'], 'thread')}; in brackets stock's "
        "time over this one's",
    )
    table.add_column("")
    table.add_column("stock", justify="right")
    for row in rows:
        table.add_column(setting_name(row, report["unit"]).replace(" ", "\n", 1), justify="right")

    def line(name: str, show: Any, **style: Any) -> None:
        table.add_row(name, *(show(row) for row in (stock, *rows)), **style)

    line("visual tokens into the language model", lambda r: f"{r['tokens_in']}")
    line("visual tokens, layer average", lambda r: f"{r['tokens_average']:.1f}", end_section=True)
    for i, concurrency in enumerate(options["concurrency"]):
        line(
            f"{several(concurrency, 'request')} at a time: requests/s",
            lambda r, i=i: f"{r['at'][i]['requests_per_s']:.2f}",
        )
        line("over stock's", lambda r, i=i: _gained(r["at"][i]), style="bold")
        line("to the first token", lambda r, i=i: _time(r["at"][i], "first_token", 0))
        line("per further token", lambda r, i=i: _time(r["at"][i], "per_token", 1), end_section=True)
    return table


def _gained(row: dict[str, Any]) -> str:
    if "requests_speedup" not in row:
        return ""
    low, high = row["requests_speedup_range"]
    return f"{row['requests_speedup']:.2f}x ({low:.2f} to {high:.2f})"


def _time(row: dict[str, Any], name: str, places: int) -> str:
    gained = f" ({row[f'{name}_speedup']:.2f}x)" if f"{name}_speedup" in row else ""
    return f"{row[f'{name}_ms']:.{places}f} ms{gained}"
