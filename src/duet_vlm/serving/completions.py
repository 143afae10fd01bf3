"""An answer in the form of OpenAI's API: whole, or as events of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from .answering import Answer
from .requests import ChatRequest


class Completion:
    """What is sent for one request.

    Args:
        model: the name under which the model is served.
        request: what was asked.
    """

    def __init__(self, model: str, request: ChatRequest):
        self._request = request
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer as one object."""
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer), "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer)}

    def begin(self) -> str:
        """The first event: who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> str:
        """A piece of the answer's text."""
        return self._chunk({"content": text})

    def end(self, answer: Answer) -> Iterator[str]:
        """The last events."""
        yield self._chunk({}, _reason(answer))
        if self._request.usage:
            yield self.event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(answer)})
        yield "data: [DONE]\n\n"

    def event(self, data: dict[str, Any]) -> str:
        """An event of a stream."""
        return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        usage = {"usage": None} if self._request.usage else {}
        return self.event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage})


def _reason(answer: Answer) -> str:
    return "length" if answer.length_reached else "stop"


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.new_tokens,
        "total_tokens": answer.prompt_tokens + answer.new_tokens,
    }
