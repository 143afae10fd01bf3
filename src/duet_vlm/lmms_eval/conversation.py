"""Conversations of lmms-eval as inputs of a transformers model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..request import read_image, special_tokens

Message = dict[str, Any]
"""{"role": str, "content": [{"type": "text" | "image" | "video" | "audio", "text" or "url": ...}]}, as in lmms-eval."""


@dataclass
class Conversation:
    """One question, ready for a processor.

    Attributes:
        messages: in the form of chat templates, media as place holders.
        images: RGB pictures in the order of their place holders.
    """

    messages: list[Message]
    images: list[Any]


def read(messages: list[Message]) -> Conversation:
    """Take the media out of the messages.

    Raises:
        ValueError: a kind of content that no supported model takes, or a picture that cannot be read.
    """
    read_messages, images = [], []
    for message in messages:
        content: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            elif part["type"] == "image":
                images.append(_picture(part["url"]))
                content.append({"type": "image"})
            else:
                raise ValueError(
                    f"content of type {part['type']!r} is not possible with duet_hf: choose a task of text and images."
                )
        read_messages.append({"role": message["role"], "content": content})
    return Conversation(read_messages, images)


def encode(processor: Any, conversations: list[Conversation]) -> Any:
    """The model's inputs for a batch, padded on the left."""
    texts = [prompt(processor, conversation.messages) for conversation in conversations]
    images = [conversation.images for conversation in conversations]
    return processor(
        text=texts,
        images=images if any(images) else None,
        return_tensors="pt",
        **special_tokens(processor),
        **({"padding": True, "padding_side": "left"} if len(texts) > 1 else {}),
    )


def prompt(processor: Any, messages: list[Message]) -> str:
    """The conversation in the model's chat format, up to where the answer begins."""
    if getattr(processor, "chat_template", None):
        text: str = processor.apply_chat_template(messages, add_generation_prompt=True)
        return text
    image = getattr(processor, "image_token", "<image>")
    flat = [{"role": m["role"], "content": _flat(m["content"], image)} for m in messages]
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(flat, add_generation_prompt=True, tokenize=False)
        return text
    names = {"system": "", "user": "USER: ", "assistant": "ASSISTANT: "}
    return " ".join([*(names[m["role"]] + m["content"] for m in flat), "ASSISTANT:"])


def _flat(content: list[dict[str, Any]], image: str) -> str:
    return "\n".join(image if part["type"] == "image" else part["text"] for part in content)


def _picture(source: Any) -> Any:
    return read_image(Path(source)) if isinstance(source, str | Path) else source.convert("RGB")
