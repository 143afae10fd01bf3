"""Help pages: what an option takes has one look everywhere, and examples stay commands that can be copied."""

from __future__ import annotations

import re
from typing import Any, get_args

METAVARS = {int: "N", float: "X", str: "TEXT"}  # of options that bring none


class HelpText:
    """Paragraphs are wrapped; those set in are examples, which break before options, as a shell reads it."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        page: Any = self
        whole = page.help
        paragraphs = (whole or "").split("\n\n")
        page.help = "\n\n".join(_example(p, formatter.width) if p.startswith("  ") else p for p in paragraphs)
        try:
            super().format_help_text(ctx, formatter)  # type: ignore[misc]
        finally:
            page.help = whole


class CommandHelp(HelpText):
    """A command's page: flags take nothing, lists take several, numbers are N and X, files FILE."""

    params: list[Any]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for option in self.params:
            if option.metavar is None and not getattr(option, "is_flag", False):
                option.metavar = METAVARS.get(_kind(option))
            if option.metavar is not None and getattr(option, "multiple", False):
                option.metavar += "..."

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments are named as below, without braces."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece.strip("{}") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            rows = []
            for parameter in self.get_params(ctx):  # type: ignore[attr-defined]
                record = parameter.get_help_record(ctx)
                if parameter.param_type_name == kind and record is not None:
                    name = record[0] if kind == "option" else parameter.metavar or parameter.name.upper()
                    rows.append((name, record[1]))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class GroupHelp(HelpText):
    """A page of commands: the first sentence of each, whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands: dict[str, Any] = self.commands  # type: ignore[attr-defined]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(1000)) for name, one in commands.items()])


def _kind(option: Any) -> Any:
    """The type of one value of an option."""
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    return (get_args(kind) or (kind,))[0]


def _example(paragraph: str, width: int) -> str:
    """A command over as many lines as it needs; behind a backspace click leaves lines as they are."""
    lines, line = list[str](), ""
    for part in re.split(r" (?=--)", paragraph.strip()):
        if line and len(line) + len(part) + 7 > width:
            lines.append(line + " \\")
            line = "    " + part
        else:
            line = f"{line} {part}" if line else part
    return "\b\n" + "\n".join(f"  {one}" for one in [*lines, line])
