"""Conversations as the model reads them: the chat template's text, and where its answers stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.arguments import tokenizer_of
from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True)
class Rendered:
    """Text for the processor, with one placeholder for each image.

    Attributes:
        text: the whole conversation.
        answers: (start, end) of every answer in characters, the token that ends its turn included.
    """

    text: str
    answers: tuple[tuple[int, int], ...]


class Renderer:
    """A processor's chat template. Answers are found by rendering turn after turn, or by its generation marks.

    An answer ends with the token that ends a turn. Templates that write none (LLaVA-1.5's converted checkpoints) get
    the end-of-sequence token there, as in the training of LLaVA-1.5 itself; without it a model never learns to stop.

    Raises:
        ValueError: no chat template, or a tokenizer that cannot tell where its tokens stand.
    """

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.template = getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        if not self.template:
            raise DuetError("the model's processor has no chat template: set processor.chat_template and save it.")
        if not self.tokenizer.is_fast:
            raise DuetError("the model's tokenizer is a slow one and cannot tell answers apart: save a fast one.")
        special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        tags = {getattr(processor, f"{kind}_token", None) for kind in ("image", "video")}
        ends = (special - tags - {self.tokenizer.bos_token, self.tokenizer.unk_token}) | {self.tokenizer.eos_token}
        self.ends = re.compile("|".join(re.escape(token) for token in sorted(ends - {None}, key=len, reverse=True)))

    def __call__(self, messages: list[dict[str, Any]]) -> Rendered:
        """The conversation, with its answers.

        Raises:
            ValueError: the template refuses it, or hides where an answer stands.
        """
        text = self.render(messages)
        spans = self._by_turns(text, messages)
        if spans is None and "generation" in str(self.template):
            spans = self._by_marks(messages)
        if spans is None:
            raise DuetError("the chat template rewrites earlier turns, so its answers cannot be found")
        return self._closed(text, spans)

    def render(self, messages: list[dict[str, Any]], prompt: bool = False) -> str:
        """The template's text; with `prompt` up to where the next answer begins."""
        try:
            text: str = self.processor.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
        except Exception as error:  # templates raise what they like
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise DuetError(f"the chat template refuses it: {reason}") from error
        return text

    def _by_turns(self, text: str, messages: list[dict[str, Any]]) -> list[tuple[int, int]] | None:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, after = self.render(messages[:i]), self.render(messages[: i + 1])
            if not (text.startswith(before) and text.startswith(after)):
                return None
            prompt_text = self.render(messages[:i], prompt=True)
            start = max(len(before), _shared(prompt_text, after))
            answer = "".join(part["text"] for part in message["content"] if part["type"] == "text").strip()
            if answer not in after[start:]:
                return None
            spans.append((start, len(after)))
        return spans

    def _by_marks(self, messages: list[dict[str, Any]]) -> list[tuple[int, int]] | None:
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            conversations=[messages], chat_template=self.template, return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )  # fmt: skip
        return [(start, end) for start, end in rendered[1][0]] or None

    def _closed(self, text: str, spans: list[tuple[int, int]]) -> Rendered:
        """Every answer up to and with the token that ends its turn, written where there is none."""
        pieces: list[str] = []
        answers, length, at = [], 0, 0
        for start, end in spans:
            last = [match.end() for match in self.ends.finditer(text, start, end)]
            after = self.ends.match(text, end)
            if last:
                closed, resume = text[start : last[-1]], last[-1]
            elif after:
                closed, resume = text[start : after.end()], after.end()
            else:
                closed, resume = text[start:end].rstrip() + (self.tokenizer.eos_token or ""), end
            between = text[at:start]
            answers.append((length + len(between), length + len(between) + len(closed)))
            length += len(between) + len(closed)
            pieces += [between, closed]
            at = resume
        return Rendered("".join([*pieces, text[at:]]), tuple(answers))


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
