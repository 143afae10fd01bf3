"""Figures as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    step = 0
    while count >= 1024 and step + 1 < len(UNITS):
        count, step = count / 1024, step + 1
    return f"{count:.0f} {UNITS[step]}" if step == 0 else f"{count:.1f} {UNITS[step]}"


def several(count: int, thing: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def flops(count: float, whole: float) -> str:
    """In G; of a small model, whose `whole` prompt needs less than ten, in M."""
    count, unit = (count / 1e9, "G") if whole >= 1e10 else (count / 1e6, "M")
    return f"{count:.1f} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def medians(runs: int) -> str:
    return "one run" if runs == 1 else f"medians of {runs} runs"


def setting_name(row: dict[str, Any], unit: str) -> str:
    """A method and its budget: "duet 64", or "duet 8 a crop" where that is what a budget is given for."""
    if row["keep"] is not None:
        return f"{row['method']} keep {row['keep']:g}"
    if row["tokens"] is None:
        return str(row["method"])
    return f"{row['method']} {row['tokens']:g}" + ("" if unit == "image" else f" a {unit}")


def bench_table(report: dict[str, Any]) -> Table:
    """One column per setting, stock first."""
    stock, rows = report["stock"], report["settings"]
    options, machine = report["options"], report["hardware"]
    table = Table(
        title=f"{report.get('model', 'model')}, {options['layers']} decoder layers, {options['dtype']}, batch "
        f"{options['batch_size']}, {options['text_tokens']} text tokens, {medians(options['runs'])}",
        caption=f"{machine.get('gpu', machine['cpu'])}, {several(machine['threads'], 'thread')}",
    )
    table.add_column("")
    table.add_column("stock", justify="right")
    for row in rows:
        table.add_column(setting_name(row, report["unit"]).replace(" ", "\n", 1), justify="right")

    def line(name: str, show: Any, with_stock: bool = True, **style: Any) -> None:
        table.add_row(name, show(stock) if with_stock else "", *(show(row) for row in rows), **style)

    line("visual tokens into the language model", lambda r: f"{r['tokens_in']}")
    line("visual tokens, layer average", lambda r: f"{r['tokens_average']:.1f}", end_section=True)
    table.add_row("vision tower", f"{stock['tower_ms']:.1f} ms", *("" for _ in rows))
    line("tower, stage 1 and projector", lambda r: f"{r['encode_ms']:.1f} ms")
    line("stage 1", lambda r: f"{r['stage1_ms']:.2f} ms", with_stock=False)
    line("stage 1 of the tower's time", lambda r: f"{r['stage1_over_tower']:.2%}", with_stock=False, end_section=True)
    line("prefill", lambda r: f"{r['prefill_ms']:.1f} ms")
    line("prefill speed-up", lambda r: f"{r['prefill_speedup']:.2f}x", with_stock=False)
    line("FLOPs ratio, the ideal", lambda r: f"{r['flops_ratio']:.2f}x", with_stock=False)
    line("share of the ideal", lambda r: f"{r['share']:.3f}", with_stock=False, style="bold")
    line("tower and prefill speed-up", lambda r: f"{r['tower_prefill_speedup']:.2f}x", with_stock=False)
    line(
        "ranking of a decoder layer's time, the most",
        lambda r: f"{r['ranking_over_layer']:.1%}" if r["rankings"] else "-",
        with_stock=False,
        end_section=True,
    )
    line("decode, per token", lambda r: f"{r['decode_ms']:.2f} ms")
    line("added per layer and decoding step", lambda r: f"{r['decode_us_per_layer']:.1f} us", with_stock=False)
    line("KV cache of the prompt", lambda r: size(r["kv_bytes"]))
    line("KV cache, expected", lambda r: size(r["kv_bytes_expected"]))
    line("peak memory beyond the weights", lambda r: size(r["peak_memory"]))
    return table


def train_table(report: dict[str, Any], tune: str) -> Table:
    """Training steps of one way to tune: one column per setting, stock first."""
    measured, options, machine = report["tunes"][tune], report["options"], report["hardware"]
    stock, rows = measured["stock"], measured["settings"]
    table = Table(
        title=f"{report.get('model', 'model')}, {options['layers']} decoder layers, {tune} training, "
        f"{options['dtype']}, batch {options['batch_size']}, {options['text_tokens']} text tokens, "
        f"{options['answer_tokens']} of them answer, {medians(options['runs'])}",
        caption=f"{machine.get('gpu', machine['cpu'])}, {several(machine['threads'], 'thread')}",
    )
    table.add_column("")
    for name in ("stock, all logits", "stock"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_column(setting_name(row, report["unit"]).replace(" ", "\n", 1), justify="right")

    def line(name: str, show: Any, before: str = "", **style: Any) -> None:
        """`before` says what stands in stock's columns, where nothing is saved."""
        first = [show(measured["all_logits"]), show(stock)] if not before else before.split("|")
        table.add_row(name, *first, *(show(row) for row in rows), **style)

    line("visual tokens into the language model", lambda r: f"{r['tokens_in']}")
    line("visual tokens, layer average", lambda r: f"{r['tokens_average']:.1f}", end_section=True)
    line("forward", lambda r: f"{r['forward_ms']:.0f} ms")
    line("backward", lambda r: f"{r['backward_ms']:.0f} ms")
    line("AdamW", lambda r: f"{r['optimizer_ms']:.0f} ms")
    line("step", lambda r: f"{r['step_ms']:.0f} ms")
    line("peak memory beyond weights and optimizer", lambda r: size(r["peak_memory"]), end_section=True)
    line("step time saved", lambda r: f"{r['saved']:.1%}", f"{measured['all_logits']['saved']:.1%}|")
    line("what FLOPs allow", lambda r: f"{r['allowed']:.1%}", "|")
    line("share of what FLOPs allow", lambda r: f"{r['share']:.3f}", "|", style="bold")
    line("the same without AdamW", lambda r: f"{r['share_of_passes']:.3f}", "|")
    line("what FLOPs allow at full depth", lambda r: f"{r['allowed_full_depth']:.1%}", "|")
    line("the paper, whole training runs", lambda r: "-" if r["paper"] is None else f"{r['paper']:.0%}", "|")
    return table


def run_table(report: dict[str, Any]) -> Table:
    """What an answer cost, beside the uncompressed one if it was asked for."""
    columns = [("not compressed" if report["method"] == "none" else "compressed", report)]
    if "uncompressed" in report:
        columns.append(("uncompressed", report["uncompressed"]))
    table = Table(title=report["settings"])
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right")

    def line(name: str, show: Any) -> None:
        table.add_row(name, *(show(column) for _, column in columns))

    line(f"visual tokens of the {report['media']}", lambda r: str(r["visual_tokens"]))
    line("into the language model", lambda r: str(r["tokens_in"]))
    for i, drop in enumerate(report["drops"]):
        line(
            f"after the drop at layer {drop['layer']}",
            lambda r, i=i: str(r["drops"][i]["tokens"]) if r["drops"] else str(r["visual_tokens"]),
        )
    line("layer average", lambda r: f"{r['tokens_average']:.1f} ({r['tokens_average'] / r['visual_tokens']:.1%})")
    line("KV cache of the prompt, tokens per layer", lambda r: f"{r['kv_tokens']:.1f}")
    line("KV cache of the prompt", lambda r: size(r["kv_bytes"]))
    line("time to the first token", lambda r: f"{1e3 * r['seconds_to_first_token']:.0f} ms")
    line("time to the whole answer", lambda r: f"{1e3 * r['seconds']:.0f} ms")
    if report["words_found_by"] is not None:
        line("salient words found by", lambda r: r.get("words_found_by", "-"))
    return table


def check_table(report: dict[str, Any]) -> Table:
    """One row per promise: what was measured, what is allowed, whether it holds, and what was compared."""
    made = report["versions"]
    table = Table(
        title=f"{report['checked']}: duet-vlm {made['duet_vlm']}, transformers {made['transformers']}, torch "
        f"{made['torch']}, {report['device']}, {report['dtype']}, {report['attention']} attention",
        caption="differences of log-probabilities, where the last column says nothing else; docs/check.md",
    )
    table.add_column("promise")
    for name in ("measured", "allowed"):
        table.add_column(name, justify="right")
    table.add_column("")
    table.add_column("what was compared", overflow="fold")
    styles = {"fails": "bold red", "not checked": "yellow"}
    for line in report["lines"]:
        figures = ["-" if x is None else f"{x:.2g}" for x in (line["measured"], line["allowed"])]
        table.add_row(line["promise"], *figures, line["result"], escape(line["note"]), style=styles.get(line["result"]))
    return table
