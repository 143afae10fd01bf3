"""Write docs/api.md from the docstrings of the public names: python docs/make_api.py. A test holds the page to them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import duet_vlm
from duet_vlm.checks.report import Line, Report
from duet_vlm.demo.model import load
from duet_vlm.engine.trace import AudioTrace, DropTrace, ImageTrace, SampleTrace
from duet_vlm.measuring.depth import Depth

PAGE = Path(__file__).with_name("api.md")

INTRODUCTION = """# API

Every public name, from its docstring; `python docs/make_api.py` writes this page. What is not here may change without
notice. What the settings do together: [usage.md](usage.md) and [methods.md](methods.md).
"""

NAMES: dict[str, Any] = {
    "duet_vlm.apply": duet_vlm.apply,
    "duet_vlm.DuetConfig": duet_vlm.DuetConfig,
    "duet_vlm.Drop": duet_vlm.Drop,
    "duet_vlm.Duet": duet_vlm.Duet,
    "duet_vlm.handle_of": duet_vlm.handle_of,
    "duet_vlm.Trace": duet_vlm.Trace,
    "ImageTrace": ImageTrace,
    "SampleTrace": SampleTrace,
    "DropTrace": DropTrace,
    "AudioTrace": AudioTrace,
    "duet_vlm.reading_depth": duet_vlm.reading_depth,
    "Depth": Depth,
    "duet_vlm.check": duet_vlm.check,
    "Report": Report,
    "Line": Line,
    "duet_vlm.register_stage1": duet_vlm.register_stage1,
    "duet_vlm.register_stage2": duet_vlm.register_stage2,
    "duet_vlm.DuetError": duet_vlm.DuetError,
    "duet_vlm.demo.model.load": load,
}
INTERNAL = {"of"}  # class methods that the engine alone calls


def page() -> str:
    parts = [INTRODUCTION]
    for name, thing in NAMES.items():
        parts.append(f"## {name}\n")
        parts.append(_signature(name.rpartition(".")[2], thing))
        parts.append(_markdown(inspect.getdoc(thing) or ""))
        for member, owner in _members(thing).items():
            parts.append(f"### {name.rpartition('.')[2]}.{member}\n")
            if not isinstance(owner, property):
                parts.append(_signature(member, getattr(owner, "__func__", owner)))
            parts.append(_markdown(inspect.getdoc(owner) or ""))
    return "\n".join(parts)


def _members(thing: Any) -> dict[str, Any]:
    """Public properties and methods, as classes of this package define them, in the order of their source."""
    found: dict[str, Any] = {}
    for owner in reversed(thing.__mro__) if isinstance(thing, type) else ():
        if owner.__module__.startswith("duet_vlm."):
            for name, member in vars(owner).items():
                is_member = isinstance(member, (property, classmethod)) or inspect.isfunction(member)
                if is_member and not name.startswith("_") and name not in INTERNAL:
                    found[name] = member
    return found


def _signature(name: str, thing: Any) -> str:
    if isinstance(thing, type) and issubclass(thing, Exception):
        return ""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return ""
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    given, starred = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            given.append("*")
            starred = True
        text = {p.VAR_KEYWORD: "**", p.VAR_POSITIONAL: "*"}.get(p.kind, "") + p.name
        if p.annotation is not p.empty:
            text += f": {p.annotation}"
        if p.default is not p.empty:
            text += f" = {'...' if callable(p.default) else repr(p.default)}"
        given.append(text)
    returns = "" if isinstance(thing, type) or signature.return_annotation is signature.empty else (
        f" -> {signature.return_annotation}"
    )  # fmt: skip
    line = f"{name}({', '.join(given)}){returns}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in given) + f"){returns}"
    return f"```text\n{line}\n```\n"


def _markdown(doc: str) -> str:
    """A docstring's paragraphs as they are; its sections as lists, and its example as code."""
    lines, section = [], ""
    for line in doc.splitlines():
        title = re.fullmatch(r"(Args|Attributes|Returns|Raises|Example):", line)
        if title:
            if section == "Example":
                lines.append("```")
            section = title.group(1)
            lines += [f"**{section}**", ""] + (["```pycon"] if section == "Example" else [])
            continue
        if section == "Example":
            lines.append(line[4:] if line.strip() else "")
        elif section in ("Args", "Attributes", "Raises") and (entry := re.fullmatch(r"    (\w+): (.*)", line)):
            lines.append(f"- `{entry.group(1)}`: {entry.group(2)}")
        elif section and line.strip():
            lines.append("  " + line.strip() if section != "Returns" else line.strip())
        else:
            lines.append(line)
    if section == "Example":
        lines.append("```")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
