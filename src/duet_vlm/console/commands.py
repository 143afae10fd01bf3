"""How every command reads its line: one style for all of them."""

from __future__ import annotations

import contextlib
from typing import Any

from typer.core import TyperCommand, TyperGroup

from .help_pages import CommandHelp, GroupHelp
from .option_files import defaults_of
from .quiet import quiet
from .terminal import plain_errors
from .usage import in_a_sentence

DEBUG = "--debug"
ALIASES = {"--methods": "--method"}  # spellings of earlier releases
PAIRS = {"--grid": "x"}  # options whose two numbers may stand apart


class Command(CommandHelp, TyperCommand):
    """A command whose list options take several values after one name: `--tokens 192 128 64`.

    It has list options or arguments, not both: a word behind the values of a list would be one more of them. With a
    parameter `config_file` it takes a file of options, too.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = self._spread(_paired(_renamed(args)))
        if any(option.name == "config_file" for option in self.params):
            args, ctx.default_map = defaults_of(self, args)
        with in_a_sentence(ctx.command_path, tuple(args)):
            return super().parse_args(ctx, args)

    def _spread(self, args: list[str]) -> list[str]:
        """The name of a list option before each of its values."""
        lists = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread: list[str] = []
        option, wants_value = None, False
        for word in args:
            if wants_value:
                wants_value = False
                spread.append(word)
            elif word.partition("=")[0] in lists:
                option, _, value = word.partition("=")
                wants_value = not value
                spread.append(word)
            elif option is not None and not word.startswith("-"):
                spread += [option, word]
            else:
                option = None
                spread.append(word)
        return spread

    def invoke(self, ctx: Any) -> Any:
        with contextlib.nullcontext() if ctx.find_root().params.get("debug", False) else quiet():
            return super().invoke(ctx)


class Commands(GroupHelp, TyperGroup):
    """Commands that say what a user can put right in one line; `--debug` may stand anywhere among their options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        options = [word for word in args[:end] if word != DEBUG]
        wanted = [DEBUG] if len(options) < end else []
        with plain_errors(), in_a_sentence(ctx.command_path, tuple(args)):
            return super().parse_args(ctx, wanted + options + args[end:])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        with in_a_sentence(ctx.command_path, tuple(args)):
            return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with plain_errors(ctx.find_root().params.get("debug", False)):
            return super().invoke(ctx)


def _renamed(args: list[str]) -> list[str]:
    renamed = []
    for word in args:
        name, equals, value = word.partition("=")
        renamed.append(ALIASES.get(name, name) + equals + value)
    return renamed


def _paired(args: list[str]) -> list[str]:
    """`--grid 8 12` as `--grid 8x12`."""
    paired = list[str]()
    for word in args:
        if len(paired) > 1 and paired[-2] in PAIRS and paired[-1].isdigit() and word.isdigit():
            paired[-1] += PAIRS[paired[-2]] + word
        else:
            paired.append(word)
    return paired
