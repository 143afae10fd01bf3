"""Messages of OpenAI's chat API as messages of a chat template, their pictures taken out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import short, shown
from ..inputs.prompts import Message
from .limits import TEXT, Limits, RequestError

ROLES = ("system", "user", "assistant")
DETAIL = "auto"  # which details are kept is the server's budget, not the request's


def read_messages(messages: Any, limits: Limits) -> tuple[list[Message], list[str]]:
    """The conversation, and the URLs of its pictures in their order.

    Raises:
        RequestError: a message or a part of one that the server does not take, too many pictures or too much text.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError(f"messages {shown(messages)} must be a list of at least one message.", param="messages")
    found, pictures, characters = [], list[str](), 0
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role, parts = _parts(message, where)
        content: list[dict[str, str]] = []
        for at, part in enumerate(parts):
            place = f"{where}.content[{at}]"
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text":
                text = _text(part, place)
                characters += len(text)
                content.append({"type": "text", "text": text})
            elif kind == "image_url":
                if role != "user":
                    raise RequestError(f"{place} is a picture of the {role}: give pictures in messages of the user.")
                pictures.append(_url(part, place))
                content.append({"type": "image"})
            else:
                raise RequestError(f"{place} is of type {shown(kind)}: give text or image_url.", param=place)
        found.append({"role": role, "content": content})
    check_count(len(pictures), limits)
    if characters > TEXT:
        raise RequestError(f"the text has {characters} characters: {TEXT} are allowed, shorten it.", param="messages")
    return found, pictures


def check_count(pictures: int, limits: Limits) -> None:
    """Raises RequestError for more pictures than a request may have."""
    if pictures > limits.images:
        raise RequestError(
            f"the request has {pictures} pictures: {limits.images} are allowed, leave some out.", param="messages"
        )


def _parts(message: Any, where: str) -> tuple[str, list[Any]]:
    if not isinstance(message, Mapping):
        raise RequestError(f"{where} must be an object with role and content, and {shown(message)} is none.")
    role = message.get("role")
    if role not in ROLES:
        raise RequestError(f"{where} has the role {shown(role)}: choose one of {', '.join(ROLES)}.", param=where)
    for name, value in message.items():
        if name not in ("role", "content") and value not in (None, [], ""):
            raise RequestError(f"{where} has {short(str(name))!r}, which this server does not take: leave it out.")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise RequestError(f"{where} has the content {shown(content)}: give a text or a list of parts.", param=where)
    return role, content


def _text(part: Mapping[str, Any], place: str) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise RequestError(f"{place} has the text {shown(text)}: give a text.", param=place)
    return text


def _url(part: Mapping[str, Any], place: str) -> str:
    said = part.get("image_url")
    if isinstance(said, str):
        said = {"url": said}
    if not isinstance(said, Mapping) or not isinstance(said.get("url"), str):
        raise RequestError(f"{place} has no url: give {{'image_url': {{'url': 'data:image/png;base64,...'}}}}.")
    if said.get("detail") not in (None, DETAIL):
        raise RequestError(
            f"{place} has the detail {shown(said['detail'])}: how many visual tokens are kept is set where the server "
            f"is started, leave it out or give {DETAIL}.", param=place,
        )  # fmt: skip
    return str(said["url"])
