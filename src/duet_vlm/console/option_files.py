"""A command's options from a file: `--config FILE`, YAML or JSON, whose keys are the options' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.budget_rule import FILE, is_file
from ..config.saved import are_settings
from ..errors import DuetError, closest, reason, shown
from ..inputs.paths import check_file

OPTION = "--config"
# of these one is given: one on the command line puts all of its kind in the file aside
EXCLUSIVE = (("tokens", "keep"), ("model", "shape"), ("image", "grid", "tiles"))


def defaults_of(command: Any, args: list[str]) -> tuple[list[str], dict[str, Any] | None]:
    """The command line without `--config FILE`, and what that file says, by parameter; None where there is none.

    What stands on the command line goes before what stands in the file. Relative paths in it start where the command
    is started, as on the command line.

    Raises:
        DuetError: no file, one that is neither YAML nor JSON, or a key that is no option of this command.
    """
    rest, file = list[str](), None
    words = iter(args)
    for word in words:
        name, _, value = word.partition("=")
        if name == OPTION:
            file = value or next(words, None)
            if file is None:
                raise DuetError(f"{OPTION} needs a file: give the path of a YAML or JSON file of options.")
        else:
            rest.append(word)
    if file is None:
        return rest, None
    options = {_name(option): option for option in command.params if option.name != "config_file"}
    names = {word.partition("=")[0].lstrip("-") for word in rest if word.startswith("--")}
    aside = {name for group in EXCLUSIVE if names & set(group) for name in group}
    values, given = {}, _read(Path(file))
    if are_settings(given):
        given = _choosing(options, file)
    for key, value in given.items():
        name = str(key).replace("_", "-")
        if name not in options:
            like = closest(name, options)
            hint = f"did you mean {like}?" if like else f"choose from {', '.join(options)}."
            raise DuetError(f"{OPTION} {file!r}: {shown(key)} is no option of duet {command.name}: {hint}")
        if name not in aside:
            values[options[name].name] = _plain(options[name], value)
    return rest, values


def _choosing(options: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """The options that choose a file of settings: it is the method.

    Raises:
        DuetError: the command chooses no method, or not by one of this ending.
    """
    if "method" not in options or not is_file(file):
        why = "this command chooses none" if "method" not in options else f"end its name with {FILE}"
        raise DuetError(f"{OPTION} {file!r} holds settings of a compression: {why}.")
    return {"method": file}


def _name(option: Any) -> str:
    """The name of an option without its dashes; an argument's as help shows it, in small letters."""
    if option.param_type_name == "argument":
        return str(option.metavar or option.name).lower()
    return str(max(option.opts, key=len)).lstrip("-")


def _plain(option: Any, value: Any) -> Any:
    """A value as the command line would give it: one of a list option is a list of one, sizes are written 48x64."""
    if getattr(option, "multiple", False):
        return value if isinstance(value, list) else [value]
    return "x".join(map(str, value)) if isinstance(value, list) else value


def _read(file: Path) -> Mapping[Any, Any]:
    import yaml  # transformers needs it, so it is there

    check_file(file, OPTION, "a YAML or JSON file of options")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DuetError(f"{OPTION} {str(file)!r} is neither YAML nor JSON ({reason(error)}): mend it.") from error
    if not isinstance(values, Mapping):
        raise DuetError(f"{OPTION} {str(file)!r} holds no options: write one a line, as in 'tokens: [192, 64]'.")
    return values
