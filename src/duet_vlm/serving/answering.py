"""One chat completion by a compressed transformers model."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError

from ..engine.handle import Duet
from ..errors import reason
from ..families import is_visual
from ..families.placeholders import check_text
from ..inputs.images import read_image
from ..inputs.prompts import context, conversation, processing, special_tokens
from .limits import Limits, RequestError
from .requests import ChatRequest
from .text_stream import Ends, TextStream


@dataclass(frozen=True)
class Answer:
    """What a request gets.

    Attributes:
        text: of the answer, up to a stop text.
        length_reached: whether it was cut off at the most tokens that were allowed.
        prompt_tokens: of the prompt, visual tokens before compression included.
        new_tokens: of the answer, the token that ends it included.
        visual_tokens: of the prompt, before compression.
        visual_kept: the same as the decoder's layers worked on them, on average, in both readings where there were two.
        fell_back: whether it was given again with all visual tokens.
    """

    text: str
    length_reached: bool
    prompt_tokens: int
    new_tokens: int
    visual_tokens: int
    visual_kept: float
    fell_back: bool = False


class Answerer:
    """Answers requests with one model, one at a time.

    Args:
        handle: of the compression that is on the model.
        processor: the model's.
        limits: of the server.
    """

    def __init__(self, handle: Duet, processor: Any, limits: Limits):
        self.handle, self.model, self.processor, self.limits = handle, handle.model, processor, limits
        self.marks = special_tokens(processor)
        longest = context(self.model.config)
        self.longest = limits.prompt_tokens if longest is None else min(limits.prompt_tokens, longest - 1)
        self.context = longest

    def answer(
        self,
        request: ChatRequest,
        pictures: Sequence[Any],
        put: Callable[[str], None],
        gone: Callable[[], bool],
    ) -> Answer:
        """Answer a request.

        Args:
            request: what is asked.
            pictures: its pictures, as `read_picture` opened them.
            put: gets the answer's text, piece by piece.
            gone: tells whether nobody waits for the answer any more.

        Raises:
            DuetError: a picture that is damaged, a text that stands for one, or a prompt that is too long, or that the
                model's template or processor does not take.
        """
        inputs = self._inputs(request, pictures)
        ids = inputs["input_ids"]
        length, most = ids.shape[1], self._most(request, ids.shape[1])
        stream = TextStream(self._decode, request.stop, put)
        # what a seed decides is decided here alone: sampling, and methods that draw tokens
        with torch.random.fork_rng([ids.device] if ids.device.type == "cuda" else []):
            torch.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
            self.model.generate(
                **inputs, **self._sampling(request), max_new_tokens=most, num_beams=1, num_return_sequences=1,
                streamer=stream, stopping_criteria=[Ends(stream, gone)],
            )  # fmt: skip
        visual = int(is_visual(self.model.config, ids).sum())
        ended = stream.stopped or stream.tokens[-1] in self._ends()
        return Answer(stream.text, not ended, length, len(stream.tokens), visual, *self._kept(visual))

    def _inputs(self, request: ChatRequest, pictures: Sequence[Any]) -> Any:
        for message in request.messages:
            for part in message["content"]:
                if part["type"] == "text":
                    check_text(part["text"], self.processor, self.model.config)
        try:
            text = conversation(self.processor, request.messages)
        except TemplateError as error:  # such as roles that do not take turns
            raise RequestError(
                f"the model's chat template refuses these messages ({reason(error)}): change them.", param="messages"
            ) from error
        # a list of lists, since some processors make fewer tokens of each of several pictures of one conversation
        images = {"images": [[read_image(picture) for picture in pictures]]} if pictures else {}
        with processing("the request", "change its pictures or text"):
            inputs = self.processor(text=[text], return_tensors="pt", **images, **self.marks)
        length = inputs["input_ids"].shape[1]
        if length > self.longest:
            raise RequestError(
                f"the prompt has {length} tokens: {self.longest} are allowed, shorten it or send fewer pictures.",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        return inputs.to(self.model.device, self.model.dtype)

    def _most(self, request: ChatRequest, length: int) -> int:
        """How many tokens the answer may have."""
        left = self.limits.new_tokens if self.context is None else self.context - length
        if request.max_tokens is not None and request.max_tokens > left:
            raise RequestError(
                f"a prompt of {length} tokens leaves {left} of the model's context to the answer, and max_tokens is "
                f"{request.max_tokens}: ask for less.", param="max_tokens", code="context_length_exceeded",
            )  # fmt: skip
        return request.max_tokens or min(left, self.limits.new_tokens)

    def _sampling(self, request: ChatRequest) -> dict[str, Any]:
        """What the request says of sampling; the rest is the model's own (generation_config.json)."""
        own = self.model.generation_config
        sampled = own.do_sample if request.temperature is None else request.temperature > 0
        if not sampled:
            return {"do_sample": False}
        # transformers takes the best 50 tokens where nothing is said
        chosen: dict[str, Any] = {"do_sample": True, "top_k": own.top_k or 0}
        chosen |= {} if request.temperature is None else {"temperature": request.temperature}
        return chosen | ({} if request.top_p is None else {"top_p": request.top_p})

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.processor.decode(tokens, skip_special_tokens=True)
        return text

    def _ends(self) -> list[int]:
        found = self.model.generation_config.eos_token_id
        return found if isinstance(found, list) else [found]

    def _kept(self, visual: int) -> tuple[float, bool]:
        """Visual tokens of the last prompt, averaged over the decoder's layers, and whether it was read twice."""
        trace = self.handle.trace if visual else None
        if trace is None:
            return float(visual), False
        counts = trace.samples[0].work_per_layer
        return sum(counts) / len(counts), trace.samples[0].fell_back
