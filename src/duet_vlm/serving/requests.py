"""A chat completion as it is asked for: what the server takes, and what it refuses rather than pass over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import closest, shown
from ..inputs.prompts import Message
from .limits import Limits, RequestError
from .messages import read_messages

STOPS = 4  # as many as OpenAI's API takes
# what changes no answer, or names who asks
IDLE = (
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
# what is not built, and the values of it that mean nothing
UNBUILT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": (),
    "verbosity": (),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
TAKEN = (
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream",
    "stream_options",
)  # fmt: skip


@dataclass(frozen=True)
class ChatRequest:
    """A request whose every part but the pictures' bytes has been found good.

    Attributes:
        messages: in the form of chat templates, pictures as place holders.
        pictures: the URLs of the pictures, in the order of their place holders.
        max_tokens: of the answer; None where the request does not say.
        temperature: 0 for the most likely token, None for the model's own way to choose.
        top_p: None for the model's own.
        seed: of sampling; None for another one every time.
        stop: texts before which the answer ends.
        stream: whether the answer is sent as it comes.
        usage: whether a stream ends with the counts of tokens.
    """

    messages: list[Message]
    pictures: list[str]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False


def read_request(body: Any, model: str, limits: Limits) -> ChatRequest:
    """Check the parsed body of a request to /v1/chat/completions.

    Args:
        body: what the JSON holds.
        model: the name under which the model is served.

    Raises:
        RequestError: anything that is missing, wrong, too much or not built.
    """
    if not isinstance(body, Mapping):
        raise RequestError(f"a request is a JSON object with model and messages, and {shown(body)} is none.")
    given = {str(name): value for name, value in body.items() if value is not None and name not in IDLE}
    for name, value in given.items():
        _check_known(name, value)
    _check_model(given.get("model"), model)
    messages, pictures = read_messages(given.get("messages"), limits)
    stream = _flag(given, "stream")
    return ChatRequest(
        messages,
        pictures,
        max_tokens=_max_tokens(given, limits),
        temperature=_number(given, "temperature", 0, 2),
        top_p=_number(given, "top_p", 0, 1, without_low=True),
        seed=_whole(given, "seed", -(2**63), 2**63 - 1),
        stop=_stop(given.get("stop", ())),
        stream=stream,
        usage=_usage(given.get("stream_options"), stream),
    )


def _check_known(name: str, value: Any) -> None:
    if name in TAKEN:
        return
    if name in UNBUILT:
        neutral = UNBUILT[name]
        if any(type(value) is type(one) and value == one for one in neutral) or (value == 0 and 0 in neutral):
            return
        only = f"leave it out or give {' or '.join(map(repr, neutral))}" if neutral else "leave it out"
        raise RequestError(f"{name} {shown(value)} is not possible with this server: {only}.", param=name)
    like = closest(name, TAKEN)
    hint = f"did you mean {like}?" if like else f"it takes {', '.join(TAKEN)}."
    raise RequestError(f"this server knows no parameter {shown(name)}: {hint}", param=name)


def _check_model(asked: Any, served: str) -> None:
    if asked is None:
        raise RequestError(f"model is missing: give {served!r}, the one that is served here.", param="model")
    if asked != served:
        raise RequestError(
            f"model {shown(asked)} is not served here: give {served!r}.", 404, "model", "model_not_found"
        )


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{name} {shown(value)} must be true or false.", param=name)
    return value


def _number(given: Mapping[str, Any], name: str, low: float, high: float, without_low: bool = False) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high or (without_low and value == low):
        span = f"above {low} and at most {high}" if without_low else f"from {low} to {high}"
        raise RequestError(f"{name} {shown(value)} must be a number {span}.", param=name)
    return float(value)


def _whole(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{name} {shown(value)} must be a whole number from {low} to {high}.", param=name)
    return value


def _max_tokens(given: Mapping[str, Any], limits: Limits) -> int | None:
    names = ("max_completion_tokens", "max_tokens")
    asked = {value for name in names if (value := _whole(given, name, 1, limits.new_tokens)) is not None}
    if len(asked) > 1:
        raise RequestError("max_tokens and max_completion_tokens differ: give one of them.", param=names[1])
    return asked.pop() if asked else None


def _stop(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, (list, tuple)) or not all(isinstance(one, str) and one for one in stops):
        raise RequestError(f"stop {shown(value)} must be a text or a list of texts, none of them empty.", param="stop")
    if len(stops) > STOPS:
        raise RequestError(f"stop has {len(stops)} texts: {STOPS} are allowed, leave some out.", param="stop")
    return tuple(stops)


def _usage(options: Any, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, Mapping) or not set(options) <= {"include_usage"}:
        raise RequestError(
            f"stream_options {shown(options)} must be an object with include_usage.", param="stream_options"
        )
    if not stream:
        raise RequestError("stream_options is for streams: leave it out or set stream.", param="stream_options")
    return _flag(options, "include_usage")
