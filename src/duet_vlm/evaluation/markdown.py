"""The tables of `make results` as a page of the documentation."""

from __future__ import annotations

from typing import Any

from ..console.tables import several
from ..inputs.model_folders import DEMO, PAGES
from .runs import FULL
from .table import COLUMNS, cells

FULL_TOKENS = "full tokens"  # a copy of the demonstration model that met no compression
TITLES = {
    DEMO: "the demonstration model",
    FULL_TOKENS: "the demonstration model before it met compression",
    PAGES: "pages",
}
# what has to be known of the model
CAVEATS = {
    DEMO: "**Read with care**: the shipped demonstration model was trained with DUET-VLM on (at all tokens, 33%, 22% "
    "and 11%, in turn), so it has met what DUET-VLM hands over and nothing that another method does; and what stage 1 "
    "and the text-guided methods rank by was partly supervised ([model card](../src/duet_vlm/demo/weights/README.md)).",
    FULL_TOKENS: "**Without training**: this copy of the demonstration model was trained on all visual tokens and met "
    "no method (`make demo-model OUT=DIR`; `make results MODEL=DIR RESULTS=results/full-tokens "
    "PAGE=docs/results-full-tokens.md`). `duet-plus` is here what it was until the pages came: `duet` with diverse "
    "dominant tokens and all others merged. Its CLS was not supervised; the attention that text-guided methods rank by "
    "was partly ([model card](../src/duet_vlm/demo/weights/README.md)).",
    PAGES: "**Without training**: the model for pages was trained on all visual tokens and met no method. Its CLS was "
    "taught to list the words of a page, and the attention that text-guided methods rank by was partly supervised "
    "([model card](../src/duet_vlm/pages/weights/README.md)).",
}


def results_page(kind: str, methods: dict[str, Any], ablations: dict[str, Any] | None, folder: str) -> str:
    """Markdown: all methods at every budget, then the ablations, each with the difference to its reference.

    Args:
        kind: of `TITLES`.
        methods, ablations: what `evaluate` returned; None for no ablations.
        folder: below `results/`, with the figures and plots.
    """
    settings, machine, versions = methods["settings"], methods["hardware"], methods["versions"]
    pictures = "pages" if kind == PAGES else "scenes"
    lines = [
        f"# Results on {TITLES[kind]}",
        "",
        "Written by `make results`; do not edit. What the columns mean: [evaluation.md](evaluation.md).",
        "",
        f"{methods['questions']} questions about {methods['sources']} held-out {pictures}, an equal number per "
        f"skill, seed {methods['seed']}, greedy, batches of {settings['batch_size']}, {settings['dtype']}, on "
        f"{machine.get('gpu', machine['cpu'])} with {several(machine['threads'], 'thread')} a process; duet-vlm "
        f"{versions['duet_vlm']}, torch {versions['torch']}, transformers {versions['transformers']}. "
        f"Intervals: 95%, paired bootstrap over {pictures}, {methods['bootstrap']['draws']} draws. "
        f"All figures: [results/{folder}](../results/{folder}).",
        "",
        CAVEATS[kind],
        "",
        f"![accuracy over tokens and over time](../results/{folder}/methods-pareto.png)",
        "",
    ]
    budgets = list(dict.fromkeys(run["budget"] for run in methods["runs"] if run["method"] != FULL))
    for budget in budgets:
        lines += [f"## All methods at {budget:.0%} of the visual tokens", "", *_rows(methods, budget), ""]
    lines += ["## Per skill", "", f"![accuracy per skill](../results/{folder}/methods-categories.png)", ""]
    lines += [] if ablations is None else [
        f"## Settings of DUET-VLM one at a time, at {ablations['runs'][1]['budget']:.0%}", "",
        *_rows(ablations, ablations["runs"][1]["budget"]), "",
        f"![accuracy per skill](../results/{folder}/ablations-categories.png)", "",
    ]  # fmt: skip
    if methods["skipped"]:
        reasons = [f"- {problem['reason']}" for problem in methods["skipped"]]
        lines += ["## Not possible on this model", "", *reasons, ""]
    return "\n".join(lines)


def _rows(results: dict[str, Any], budget: float) -> list[str]:
    reference = results["reference"]
    head = [name for name in COLUMNS if name != "budget"]
    head.append(f"difference to {reference}, points")
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    ranked = sorted(results["runs"], key=lambda run: (run["method"] != FULL, -run["accuracy"]))
    for run in ranked:
        if run["method"] != FULL and run["budget"] != budget:
            continue
        texts = cells(run)
        texts[0] = f"**{run['method']}**" if run["method"] == reference else run["method"]
        del texts[1]
        lines.append("| " + " | ".join([*texts, _apart(run["difference"])]) + " |")
    return lines


def _apart(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    points = f"{difference['points']:+.1f}"
    if difference["ci95"] is None:
        return points
    low, high = difference["ci95"]
    return f"{points} ({low:+.1f} to {high:+.1f})"
