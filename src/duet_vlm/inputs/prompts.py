"""A question in the model's chat format, and the processor that encodes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import ProcessorMixin


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
    if getattr(processor, "chat_template", None):
        said: Any = [*media, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
        return text
    tokens = "".join(getattr(processor, f"{part['type']}_token", f"<{part['type']}>") for part in media)
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": f"{tokens}\n{question}"}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text
    return f"USER: {tokens}\n{question} ASSISTANT:"


def special_tokens(processor: ProcessorMixin) -> dict[str, bool]:
    """What to tell the processor: a chat template that writes the first token itself would get it twice."""
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    start, around = tokenizer.bos_token, prompt(processor, "")
    return {"add_special_tokens": False} if start and around.startswith(start) else {}
