"""Conversations in files, as LLaVA and chat messages write them, into one form. Imports nothing heavy.

LLaVA (arXiv 2304.08485, as in llava_v1_5_mix665k): {"image": "a.jpg", "conversations": [{"from": "human", "value":
"<image>\\nWhat is this?"}, {"from": "gpt", "value": "A star."}]}. Chat messages: {"messages": [{"role": "user",
"content": [{"type": "image", "path": "a.jpg"}, {"type": "text", "text": "What is this?"}]}, ...]}; content may be a
text, and images may stand beside the messages under "images".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..inputs.text_files import SPACE, NotJson, check_whole, lines, may_be_torn, parse, read_text

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TAG = re.compile(r"\s*<(image|video)>\s*")
KINDS = ("image", "video")


@dataclass(frozen=True)
class Conversation:
    """A record that can be trained on.

    Attributes:
        messages: role and content; a content is a list of {"type": "text", "text": ...} and {"type": "image"} parts.
        images, videos: paths, in the order of their parts.
    """

    messages: list[dict[str, Any]]
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RawRecord:
    """What stands in a file, unread.

    Attributes:
        file, index: where; the index counts from 0 (a line's number - 1 in JSON lines).
        data: the record, or what is wrong with its line.
    """

    file: str
    index: int
    data: Any


class Unreadable(str):
    """In a record's place: why its line could not be read."""


def read_records(files: tuple[str, ...]) -> list[RawRecord]:
    """All records of JSON lists and JSON-lines files.

    Raises:
        ValueError: a file that is missing, no JSON, no list, or without any record.
    """
    records = [record for file in files for record in _read_file(file)]
    if not records:
        raise DuetError(f"the data in {', '.join(files)} holds no record: give files with conversations.")
    return records


def _read_file(file: str) -> list[RawRecord]:
    text = read_text(Path(os.path.expanduser(file)), "data", "a JSON list or JSON lines of conversations")
    torn = may_be_torn(text)
    if text.lstrip(SPACE).startswith("["):
        try:
            return [RawRecord(file, i, _whole(data) if torn else data) for i, data in enumerate(parse(text))]
        except NotJson as error:
            if not _is_json(next(lines(text))[1]):
                place = "" if error.line is None else f" at line {error.line}"
                raise DuetError(f"data {file!r} is no JSON{place}: {error}.") from error
            # else JSON lines whose first record is a list by mistake
    return [RawRecord(file, number - 1, _line(line, torn)) for number, line in lines(text)]


def _line(line: str, torn: bool) -> Any:
    try:
        data = parse(line)
    except NotJson as error:
        return Unreadable(f"the line is no JSON: {error}")
    return _whole(data) if torn else data


def _whole(data: Any) -> Any:
    try:
        check_whole(data)
    except NotJson as error:
        return Unreadable(str(error))
    return data


def _is_json(line: str) -> bool:
    try:
        parse(line)
    except NotJson:
        return False
    return True


def conversation(data: Any, folder: Path | None) -> Conversation:
    """A record in one form.

    Args:
        data: the record.
        folder: where relative paths of images and videos start.

    Raises:
        ValueError: why it cannot be trained on.
    """
    if isinstance(data, Unreadable):
        raise DuetError(str(data))
    if not isinstance(data, Mapping):
        raise DuetError(f"it is a {type(data).__name__} and no mapping")
    if "conversations" in data:
        turns = _turns(data["conversations"], "conversations", "from", "value")
    elif "messages" in data:
        turns = _turns(data["messages"], "messages", "role", "content")
    else:
        raise DuetError("it has neither conversations nor messages")
    own: dict[str, list[str]] = {kind: [] for kind in KINDS}
    messages = [{"role": role, "content": _parts(content, own)} for role, content in turns]
    while messages and messages[0]["role"] == "assistant":  # as LLaVA does: an answer to nothing is left out
        messages.pop(0)
    if not any(m["role"] == "assistant" and _says(m) for m in messages):
        raise DuetError("it has no answer")
    for i, message in enumerate(messages):
        if message["role"] == "assistant" and not _says(message):
            raise DuetError(f"its answer in turn {i} is empty: a model would learn to say nothing")
    media = {kind: _media(data, kind, own[kind], messages, folder) for kind in KINDS}
    return Conversation(messages, media["image"], media["video"])


def _turns(listed: Any, name: str, role: str, content: str) -> list[tuple[str, Any]]:
    if not isinstance(listed, list) or not listed:
        raise DuetError(f"its {name} are no list, or an empty one")
    turns = []
    for i, turn in enumerate(listed):
        if not isinstance(turn, Mapping) or role not in turn or content not in turn:
            raise DuetError(f"turn {i} has no {role!r} and {content!r}")
        if turn[role] not in ROLES:
            raise DuetError(f"turn {i} has the unknown role {turn[role]!r}: {', '.join(ROLES)} are known")
        turns.append((ROLES[turn[role]], turn[content]))
    return turns


def _parts(content: Any, own: dict[str, list[str]]) -> list[dict[str, str]]:
    """A content as parts; paths inside it are added to `own`."""
    if isinstance(content, str):
        return _split(content)
    if not isinstance(content, list):
        raise DuetError(f"a content is a {type(content).__name__}, neither a text nor a list of parts")
    parts: list[dict[str, str]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind in KINDS:
            parts.append({"type": kind})
            own[kind] += [part[key] for key in (kind, "path", "url") if part.get(key) is not None][:1]
        else:
            raise DuetError(f"a part of a content is neither text, image nor video: {part!r}")
    return parts


def _split(text: str) -> list[dict[str, str]]:
    """ "<image>\\nWhat?" -> an image and a text; spaces around a tag go, since chat templates write their own."""
    pieces = TAG.split(text)
    parts: list[dict[str, str]] = []
    for i, piece in enumerate(pieces):
        if i % 2:
            parts.append({"type": piece})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _says(message: dict[str, Any]) -> bool:
    return any(part["type"] == "text" and part["text"].strip() for part in message["content"])


def _media(
    data: Mapping[str, Any], kind: str, own: list[str], messages: list[dict[str, Any]], folder: Path | None
) -> tuple[Path, ...]:
    beside = data.get(kind) if data.get(kind) is not None else data.get(kind + "s")
    listed = own if beside is None else own + (list(beside) if isinstance(beside, list) else [beside])
    for path in listed:
        if not isinstance(path, str) or not path:
            raise DuetError(f"its {kind} {path!r} is no path")
        if "://" in path:
            raise DuetError(f"its {kind} {path!r} is an address: download it and give the file")
    places = sum(part["type"] == kind for message in messages for part in message["content"])
    if places != len(listed):
        raise DuetError(f"it has {len(listed)} {kind}s and {places} <{kind}> places")
    return tuple((folder or Path()) / os.path.expanduser(path) for path in listed)
