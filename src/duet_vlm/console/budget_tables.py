"""The tables of `duet budget`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from .tables import flops, several, size


def budget_table(report: dict[str, Any]) -> Table:
    """One row per run of layers of one kind with the same tokens, before and after, and the totals."""
    padded = "; a photo with padding in its crops keeps fewer" if report["unit"] == "crop" else ""
    described, _, aside = report["settings"].partition(";")
    settings, aside = (described if report["method"] == "saved" else report["method"]), aside and f";{aside}"
    parts, whole = report["parts"], f"{report['visual_tokens']} visual tokens"
    heard = f" and {report['audio_tokens']} audio tokens" if "seconds" in report else ""
    if report["unit"] != "image":
        whole += f" of {several(parts, report['unit'])}"
    table = Table(
        title=f"{report['model']}, {settings}: {average(report)} of {whole} on average",
        caption=f"per prompt, with {report['text_tokens']} text tokens{heard}; FLOP of the decoder; keys and values in "
        "half precision"
        f"{padded}{aside}{by_image(report)}",
    )
    table.add_column("decoder layers", no_wrap=True)
    kinds = ["visual_tokens", "audio_tokens"] if "seconds" in report else ["visual_tokens"]
    for name in (*(kind.replace("_", " ") for kind in kinds), "FLOP before", "after", "KV before", "after"):
        table.add_column(name, justify="right")
    rows = report["layers"]
    counts = [[str(row[kind]) for kind in kinds] for row in rows]
    starts = [i for i in range(len(rows)) if i == 0 or counts[i] != counts[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        # a linear layer of a hybrid decoder stores no keys, and costs something else
        linear = [row for row in rows[start:end] if not row["kv_bytes_before"]]
        others = [row for row in rows[start:end] if row["kv_bytes_before"]]
        named = ((linear, "linear"), (others, "others")) if linear and others else ((linear or others, "each"),)
        for (row, *_), name in named:
            table.add_row(
                f"{start}" if end == start + 1 else f"{start} to {end - 1}, {name}",
                *counts[start],
                flops(row["flops_before"], report["flops_before"]),
                flops(row["flops"], report["flops_before"]),
                size(row["kv_bytes_before"]),
                size(row["kv_bytes"]),
            )
    table.add_section()
    table.add_row(
        "all, and logits",
        *("" for _ in kinds),
        flops(report["flops_before"], report["flops_before"]),
        flops(report["flops"], report["flops_before"]),
        size(report["kv_bytes_before"]),
        size(report["kv_bytes"]),
        style="bold",
    )
    kept = "-" if report["kv_ratio"] is None else f"{report['kv_ratio']:.2f}x"
    table.add_row("before / after", *("" for _ in kinds), "", f"{report['flops_ratio']:.2f}x", "", kept)
    return table


def budgets_table(reports: list[dict[str, Any]]) -> Table:
    """One row per method and budget: the whole prompt's prefill, before and after."""
    first = reports[0]
    table = Table(
        title=f"{first['model']}, {first['visual_tokens']} visual tokens",
        caption=f"prefill of a prompt with {first['text_tokens']} text tokens, by the decoder alone; keys and values "
        "in half precision",
    )
    table.add_column("", no_wrap=True)
    for name in ("visual tokens, average", "FLOP", "of stock's", "KV cache", "of stock's"):
        table.add_column(name, justify="right")
    whole = first["flops_before"]
    table.add_row("stock", f"{first['visual_tokens']}", flops(whole, whole), "", size(first["kv_bytes_before"]), "")
    for report in reports:
        kept = "-" if report["kv_ratio"] is None else f"{1 / report['kv_ratio']:.1%}"
        table.add_row(
            report["settings"].partition(";")[0], f"{average(report)}", flops(report["flops"], whole),
            f"{1 / report['flops_ratio']:.1%}", size(report["kv_bytes"]), kept,
        )  # fmt: skip
    return table


def average(report: dict[str, Any]) -> str:
    """The layer average; from the least to the most where it depends on the image."""
    least = f"{report['least']['average_tokens']:.1f} to " if "least" in report else ""
    return f"{least}{report['average_tokens']:.1f}"


def by_image(report: dict[str, Any]) -> str:
    """What a reader must know where the cost depends on the image; "" where it does not."""
    if "least" not in report:
        return ""
    low = report["least"]
    return (
        f"; coverage goes by what an image shows: this is the most, the least is {low['average_tokens']:.1f} "
        f"tokens on average, {flops(low['flops'], report['flops_before'])}, {size(low['kv_bytes'])}"
    )
