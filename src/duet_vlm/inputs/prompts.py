"""Questions and conversations in the model's chat format, and the processor that encodes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import DuetError


@contextlib.contextmanager
def processing(what: str, advice: str) -> Iterator[None]:
    """Inside, a processor is at work: they raise many kinds at pictures and texts that they were not made for."""
    try:
        yield
    except Exception as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DuetError(f"the model's processor refuses {what} ({told}): {advice}.") from error


def prompt(processor: Any, question: str, media: list[dict[str, str]] | None = None) -> str:
    """The question after the media, in the model's chat format.

    Args:
        media: what stands before the question in a chat; one image if not given.
    """
    media = [{"type": "image"}] if media is None else media
    said = [*media, {"type": "text", "text": question}]
    return conversation_prompt(processor, [{"role": "user", "content": said}])


def conversation_prompt(processor: Any, messages: list[dict[str, Any]]) -> str:
    """A conversation in the model's chat format, up to where the answer begins.

    Args:
        messages: {"role": "system", "user" or "assistant", "content": [{"type": "text", "text": ...} or {"type":
            "image" or "video"}, ...]}, the latter for the places of pictures and videos.
    """
    if getattr(processor, "chat_template", None):
        text: str = processor.apply_chat_template(messages, add_generation_prompt=True)
        return text
    flat = [{"role": message["role"], "content": _flat(processor, message["content"])} for message in messages]
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(flat, add_generation_prompt=True, tokenize=False)
        return text
    names = {"system": "", "user": "USER: ", "assistant": "ASSISTANT: "}
    return " ".join([*(names[message["role"]] + message["content"] for message in flat), "ASSISTANT:"])


def _flat(processor: Any, parts: list[dict[str, Any]]) -> str:
    """Place holders first, then the text."""
    kinds = [part["type"] for part in parts if part["type"] != "text"]
    media = "".join(getattr(processor, f"{kind}_token", f"<{kind}>") for kind in kinds)
    return "\n".join([media] * bool(media) + [part["text"] for part in parts if part["type"] == "text"])


def special_tokens(processor: Any) -> dict[str, bool]:
    """What to tell the processor: a chat template that writes the first token itself would get it twice."""
    tokenizer = getattr(processor, "tokenizer", processor)
    start, shown = tokenizer.bos_token, prompt(processor, "")
    return {"add_special_tokens": False} if start and shown.startswith(start) else {}


def context(config: Any) -> int | None:
    """The longest prompt of a model, in tokens; None where its config does not say, or stretches it."""
    text = config.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or {}
    if "factor" in str(rotary):
        return None
    longest: int | None = getattr(text, "max_position_embeddings", None)
    return longest
