"""Text, JSON, JSON lines and YAML as people's tools write them, read in one way. Imports nothing heavy.

Any Unicode encoding is taken, with or without a byte order mark; what has none and is no JSON of another is UTF-8.
JSON is read strictly: no key twice, no NaN or Infinity, no number beyond a float's range, no half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DuetError
from .paths import check_file

LINE_END = re.compile(r"\r\n|\n|\r")  # no JSON text holds one of them within a string, as it may U+2028 and others
SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
SPACE = " \t\r\n\ufeff"  # files with a byte order mark get joined


class NotJson(DuetError):
    """What is wrong with a JSON text, as the end of a sentence; `line` counts within it, where one is known."""

    def __init__(self, reason: str, line: int | None = None):
        self.line = line
        super().__init__(reason)


def read_text(path: Path, kind: str, wanted: str) -> str:
    """A text file, with lone surrogates in place of bytes that are not UTF-8.

    Args:
        path: of the file.
        kind, wanted: what it is called and what to give instead, in messages; see `paths.check_file`.

    Raises:
        DuetError: no such file, or it cannot be read.
    """
    check_file(path, kind, wanted)
    try:
        data = path.read_bytes()
        encoding = json.detect_encoding(data)
        # one bad place shall not hide the rest of the records
        return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass")
    except (OSError, UnicodeDecodeError) as error:
        told = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DuetError(f"{kind} {str(path)!r} cannot be read ({told}): give {wanted}.") from error


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of JSON lines that are not empty, with their numbers from 1."""
    for number, line in enumerate(LINE_END.split(text), start=1):
        stripped = line.strip(SPACE)
        if stripped:
            yield number, stripped


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        NotJson: what is wrong with it.
    """
    try:
        return json.loads(text.lstrip(SPACE), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg}, column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise NotJson("it is nested too deeply") from error
    except NotJson:
        raise
    except ValueError as error:  # Python's limit, far beyond any use
        raise NotJson("a number has too many digits") from error


def may_be_torn(text: str) -> bool:
    """Whether `check_whole` can find anything in what is parsed from a text; true for emoji written as escapes."""
    return SURROGATE.search(text) is not None


def check_whole(value: Any) -> None:
    """Look for text that no tokenizer takes.

    Raises:
        NotJson: a parsed value that holds half a surrogate pair, or a byte that was not UTF-8.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        place = error.object[error.start]
        what = "a byte that is not UTF-8" if "\udc80" <= place <= "\udcff" else f"half a character, {place!a}"
        raise NotJson(f"it holds {what}") from error


def read_json(path: Path, kind: str, wanted: str) -> Any:
    """The value in a JSON file.

    Raises:
        DuetError: no such file, or it is no JSON.
    """
    text = read_text(path, kind, wanted)
    try:
        value = parse(text)
        if may_be_torn(text):
            check_whole(value)
    except NotJson as error:
        place = "" if error.line is None else f" at line {error.line}"
        raise DuetError(f"{kind} {str(path)!r} is no JSON{place}: {error}.") from error
    return value


def read_yaml(path: Path, kind: str, wanted: str) -> Any:
    """The value in a YAML file.

    Raises:
        DuetError: no such file, no YAML, or a key given twice.
    """
    import yaml

    text = read_text(path, kind, wanted).lstrip("\ufeff")

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = set()
            for key, _ in node.value:
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
                if name in keys and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                keys.add(name)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 31st of June
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DuetError(f"{kind} {str(path)!r} is no YAML{place}: {reason}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise NotJson(f"key {twice!r} is given twice")
    return mapping


def _constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJson(f"number {text} is out of range")
    return number
