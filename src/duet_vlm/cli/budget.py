"""`duet budget`: its options and its output. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..config.budget_rule import Budget, without_budget
from ..console import options, terminal
from ..inputs.choice import check_choice, check_choices
from ..inputs.files import STDOUT
from .target import Target


def budget(
    model: options.AnyModel = None,
    shape: options.Shape = None,
    method: options.Methods = None,
    tokens: options.TokensList = None,
    keep: options.KeepList = None,
    coverage: options.CoverageList = None,
    history: options.History = None,
    image: options.ImageSize = None,
    grid: options.Grid = None,
    tiles: options.Tiles = None,
    seconds: Annotated[float | None, typer.Option(help="Of a sound beside the image, for models that hear.")] = None,
    audio_keep: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="How much of its audio tokens is kept; auto: more than of the image's."),
    ] = None,
    reinvest: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Say what the saving buys, vision tower included: frames or resolution."),
    ] = None,
    frames: Annotated[
        int, typer.Option(help="With --reinvest frames: how many the stock model is shown, each as the image.", min=1)
    ] = 8,
    find_depth: Annotated[
        bool,
        typer.Option("--find-depth", help="Measure where the model reads its images, on --data, and print a schedule."),
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --find-depth: a manifest of 20 to 50 prompts.")
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Text tokens beside the image.", min=0)] = 64,
    json_file: options.JsonFile = None,
    config_file: options.ConfigFile = None,
) -> None:
    """What a budget costs per decoder layer: tokens, FLOPs and KV bytes, before and after. Loads no weights.

    One method at one budget is shown layer by layer, several in a row each.

    Examples:

      duet budget --shape llava-1.5-7b --tokens 192

      duet budget --shape internvl3-8b --image 1280x720 --method duet visionzip --keep 0.33 0.22 0.11

      duet budget --model llava-hf/llava-1.5-7b-hf --method visionzip --keep 0.11 --json budget.json

      duet budget --model Qwen/Qwen2.5-VL-7B-Instruct --grid 48x64 --keep 0.3

      duet budget --shape internvl3-8b --keep 0.22 --reinvest frames --frames 8

      duet budget --model ./my-llava --find-depth --data prompts.jsonl
    """
    terminal.check_json(json_file)
    if find_depth or data is not None:
        from .depth import find

        report = find(model, data, find_depth)
        terminal.write_json(report, json_file)
        if json_file != STDOUT:
            terminal.console().print(report["words"], highlight=False)
        return
    heard = None if audio_keep is None else options.share_or_auto("--audio-keep", audio_keep)
    target = Target.of(model, shape, image=image, grid=grid, tiles=tiles)
    choices = settings_asked(method, tokens, keep, coverage)
    for name, one in choices:
        check_choice(name, one.tokens, one.keep, target.brings, coverage=one.coverage)
    check_choices(method, tokens or [], keep or [], target.brings, True, coverage or [])
    with terminal.status():
        from ..inputs.choice import chosen, option_names
        from ..measuring import costs
        from ..measuring.reinvest import reinvested

        config, laid = target.read()
        reports = []
        for name, one in choices:
            settings = chosen(
                config, name, one.tokens, one.keep, grid=laid.grid, audio_keep=heard, coverage=one.coverage,
                history=history,
            )  # fmt: skip
            with option_names():
                costed = costs.cost_report(
                    config, settings.config, text_tokens, grid=laid.grid, tiles=laid.tiles, size=laid.size,
                    seconds=seconds,
                )  # fmt: skip
            if reinvest is not None:
                whole = (costed["visual_tokens"] // costed["parts"], frames, text_tokens)
                costed["reinvest"] = reinvested(config, settings.config, reinvest, *whole)
            reports.append({"model": target.name, "method": settings.method, "settings": settings.words, **costed})
    single = len(reports) == 1
    terminal.write_json(reports[0] if single else {"model": target.name, "budgets": reports}, json_file)
    if json_file != STDOUT:
        from ..console.budget_tables import budget_table, budgets_table

        terminal.console().print(budget_table(reports[0]) if single else budgets_table(reports))
        for report in reports:
            if "reinvest" in report:
                named = report["settings"].partition(";")[0]
                terminal.console().print(f"{named}: {report['reinvest']['words']}", highlight=False)


def settings_asked(
    methods: list[str] | None, tokens: list[float] | None, keep: list[float] | None, coverage: list[float] | None
) -> list[tuple[str | None, Budget]]:
    """Every method at every budget; methods that have none of their own once."""
    budgets = Budget.several(tokens, keep, coverage) or [Budget()]
    named: Sequence[str | None] = methods or [None]
    several = len(named) > 1
    return [
        (method, budget)
        for method in named
        # beside others at a budget these stand without one
        for budget in ([Budget()] if several and method and without_budget(method) else budgets)
    ]
