"""A question in the model's chat format, and the processor that encodes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..config.arguments import tokenizer_of
from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

Message = dict[str, Any]
"""{"role": str, "content": [{"type": "text", "image" or "video", "text" or "url": ...}]}, as chat templates take it."""


@contextlib.contextmanager
def processing(what: str, advice: str) -> Iterator[None]:
    """Inside, a processor is at work: they raise many kinds at pictures and texts that they were not made for."""
    try:
        yield
    except Exception as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DuetError(f"the model's processor refuses {what} ({told}): {advice}.") from error


def prompt(processor: ProcessorMixin, question: str, media: list[dict[str, str]] | None = None) -> str:
    """The question after the media, in the model's chat format.

    Args:
        media: what stands before the question in a chat; one image if not given.
    """
    media = [{"type": "image"}] if media is None else media
    return conversation(processor, [{"role": "user", "content": [*media, {"type": "text", "text": question}]}])


def conversation(processor: ProcessorMixin, messages: list[Message]) -> str:
    """A conversation up to where the answer begins: by the processor's chat template, by its tokenizer's, or LLaVA's.

    Args:
        messages: {"role": "system", "user" or "assistant", "content": parts}; a part is {"type": "text", "text": ...},
            or stands for a picture or a video, {"type": "image"}.
    """
    if getattr(processor, "chat_template", None):
        text: str = processor.apply_chat_template(messages, add_generation_prompt=True)
        return text
    flat = [{"role": m["role"], "content": _flat(processor, m["content"])} for m in messages]
    tokenizer = tokenizer_of(processor)
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(flat, add_generation_prompt=True, tokenize=False)
        return text
    names = {"system": "", "user": "USER: ", "assistant": "ASSISTANT: "}
    return " ".join([*(names[m["role"]] + m["content"] for m in flat), "ASSISTANT:"])


def _flat(processor: ProcessorMixin, parts: list[dict[str, Any]]) -> str:
    """Place holders first, then the text."""
    kinds = [part["type"] for part in parts if part["type"] != "text"]
    media = "".join(getattr(processor, f"{kind}_token", f"<{kind}>") for kind in kinds)
    return "\n".join([media] * bool(media) + [part["text"] for part in parts if part["type"] == "text"])


def special_tokens(processor: ProcessorMixin) -> dict[str, bool]:
    """What to tell the processor: a chat template that writes the first token itself would get it twice."""
    start, around = tokenizer_of(processor).bos_token, prompt(processor, "")
    return {"add_special_tokens": False} if start and around.startswith(start) else {}


def context(config: PreTrainedConfig) -> int | None:
    """The longest prompt of a model, in tokens; None where its config does not say, or stretches it."""
    text = config.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or {}
    if "factor" in str(rotary):
        return None
    longest: int | None = getattr(text, "max_position_embeddings", None)
    return longest
