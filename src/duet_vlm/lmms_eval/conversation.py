"""Conversations of lmms-eval as inputs of a transformers model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DuetError
from ..families import family_of
from ..families.placeholders import check_text
from ..inputs.images import read_image
from ..inputs.prompts import Message, special_tokens
from ..inputs.prompts import conversation as chat
from ..inputs.video.decoding import Clip, read_frames
from ..inputs.video.inputs import are_images, check_model, content

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin


@dataclass
class ChatQuestion:
    """One question, ready for a processor.

    Attributes:
        messages: in the form of chat templates, media as place holders.
        images: RGB pictures in the order of their place holders.
        clips: videos in the order of theirs.
    """

    messages: list[Message]
    images: list[Any]
    clips: list[Clip]


class Reader:
    """Reads conversations and encodes them for one model.

    Args:
        config: the model's.
        processor: the model's.
        max_frames: the most frames of a video to show; by default what the model's files or its family say.
    """

    def __init__(self, config: PreTrainedConfig, processor: ProcessorMixin, max_frames: int | None = None):
        self.config, self.processor, self.max_frames = config, processor, max_frames

    def read(self, messages: list[Message]) -> ChatQuestion:
        """Take the media out of the messages.

        Raises:
            DuetError: a kind of content that the model does not take, a text that it would take for a picture's place,
                or a picture or video that cannot be read.
        """
        question = ChatQuestion([], [], [])
        for message in messages:
            parts: list[dict[str, Any]] = []
            for part in message["content"]:
                if part["type"] == "text":
                    check_text(part["text"], self.processor, self.config)
                    parts.append({"type": "text", "text": part["text"]})
                elif part["type"] == "image":
                    question.images.append(read_image(part["url"]))
                    parts.append({"type": "image"})
                elif part["type"] == "video":
                    clip = self._clip(part)
                    parts += content(self.config, clip)
                    if are_images(self.config):
                        question.images += list(clip.frames)
                    else:
                        question.clips.append(clip)
                else:
                    raise DuetError(
                        f"content of type {part['type']!r} is not possible with duet_hf: choose a task of text, images "
                        "and videos."
                    )
            question.messages.append({"role": message["role"], "content": parts})
        return question

    def encode(self, conversations: list[ChatQuestion]) -> Any:
        """The model's inputs for a batch, padded on the left."""
        images = [conversation.images for conversation in conversations]
        clips = [clip for conversation in conversations for clip in conversation.clips]
        media: dict[str, Any] = {"images": images} if any(images) else {}
        if clips:
            media |= {"videos": [clip.frames for clip in clips], "video_metadata": [clip.metadata() for clip in clips]}
            media["do_sample_frames"] = False
        if len(conversations) > 1:
            media |= {"padding": True, "padding_side": "left"}
        texts = [chat(self.processor, conversation.messages) for conversation in conversations]
        return self.processor(text=texts, return_tensors="pt", **media, **special_tokens(self.processor))

    def _clip(self, part: dict[str, Any]) -> Clip:
        source = part["url"]
        if not isinstance(source, str | Path) or part.get("start_time") or part.get("end_time"):
            raise DuetError("parts of videos, or frames alone, are not possible with duet_hf: give whole video files.")
        check_model(self.config, Path(source))
        rule = family_of(self.config).frame_rule(self.processor)
        if self.max_frames is not None:
            count = None if rule.count is None else min(rule.count, self.max_frames)
            rule = replace(rule, count=count, maximum=min(rule.maximum, self.max_frames))
        return read_frames(Path(source), rule)
