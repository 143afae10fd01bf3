"""What is remembered of a request: where its visual tokens stand, and where its prompt ends.

A request that vLLM took out of memory is computed again together with its answer so far, and a beam search asks anew
for every token, with the beam so far behind the prompt. The prompt's length is kept here, so that no answer ever ranks
visual tokens.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config.budget import keep_count
from ..config.drops import Drop
from .plan import Ints

Spans = list[list[tuple[int, int]]]  # of each image, video or frame, the ranges [start, end) of its tokens


def spans_of(features: Iterable[Any], runs: Collection[str]) -> Spans:
    """Where the visual tokens of a prompt stand.

    Args:
        features: vLLM's multi-modal features of a request, in the order of the prompt.
        runs: modalities whose spans are unbroken runs of visual tokens, as in `Family.runs`.
    """
    spans: Spans = []
    for feature in features:
        ranges = [(start, last + 1) for start, last in feature.mm_position.extract_embeds_range()]
        spans += [[one] for one in ranges] if feature.modality in runs else [ranges]
    return spans


def dropping(spans: Spans, length: int, drops: Sequence[Drop]) -> Spans:
    """Return the spans that are dropped from: none where not one token of the prompt would be left.

    Such a prompt is an image alone, without even a beginning; it is served whole, or a request could stop the server.
    """
    return [] if length <= max(removed_of(spans, drops), default=0) else spans


def kept_of(spans: Spans, drop: Drop) -> tuple[int, ...]:
    """How many tokens of each span a drop keeps."""
    return tuple(keep_count(drop.keep, sum(end - start for start, end in ranges)) for ranges in spans)


def removed_of(spans: Spans, drops: Iterable[Drop]) -> tuple[int, ...]:
    """For every drop, how many visual tokens are gone behind it."""
    visual = sum(end - start for ranges in spans for start, end in ranges)
    return tuple(visual - sum(kept_of(spans, drop)) for drop in drops)


def average_left(spans: Spans, drops: Sequence[Drop], layers: int) -> float:
    """How many visual tokens a prompt has, on average over so many decoder layers."""
    visual = sum(end - start for ranges in spans for start, end in ranges)
    ends = [*(drop.layer for drop in drops), layers]
    gone = zip(removed_of(spans, drops), ends, ends[1:], strict=False)
    return visual - sum(removed * (end - start) for removed, start, end in gone) / layers


@dataclass(frozen=True, eq=False)
class Prompt:
    """The prompt of a request. It never changes.

    Attributes:
        length: how many tokens it has.
        ids: its token ids; None where it came as embeddings.
        numbers: (S,) the number 1, 2, ... of the span that a visual token belongs to, 0 for text.
        kept: for every drop, (spans + 1,) how many tokens of each it keeps; the first entry is no span.
        removed: for every drop, how many visual tokens are gone behind it.
    """

    length: int
    ids: Sequence[int] | None
    numbers: Ints
    kept: tuple[tuple[int, ...], ...]
    removed: tuple[int, ...]

    @classmethod
    def of(cls, length: int, ids: Sequence[int] | None, spans: Spans, drops: Sequence[Drop]) -> Prompt:
        """A prompt of so many tokens whose visual tokens stand in these spans."""
        numbers = np.zeros(length, np.int64)
        for number, ranges in enumerate(spans, start=1):
            for start, end in ranges:
                numbers[start:end] = number
        kept = tuple((0, *kept_of(spans, drop)) for drop in drops)
        return cls(length, ids, numbers, kept, removed_of(spans, drops))


class Requests:
    """The prompts of the requests that a model runner of vLLM (its first version) works on.

    Attributes:
        drops: of stage 2.
        runs: modalities whose spans are unbroken runs of visual tokens, as in `Family.runs`.
    """

    def __init__(self, drops: Sequence[Drop], runs: Sequence[str]):
        self.drops = tuple(drops)
        self.runs = frozenset(runs)
        self._beams = Beams()
        self._runner: Any = None
        self._known: dict[str, tuple[Any, Prompt]] = {}

    def follow(self, runner: Any) -> None:
        """Learn of requests from this model runner."""
        self._runner = runner

    def batch(self) -> list[Prompt]:
        """Those of the step that is being prepared, in the order of its rows."""
        known, requests = self._known, self._runner.requests
        if len(known) > 2 * len(requests) + 16:  # those that are over go, a few at a time
            self._known = known = {name: one for name, one in known.items() if name in requests}
        return [self._prompt(name, requests[name]) for name in self._runner.input_batch.req_ids]

    def _prompt(self, name: str, request: Any) -> Prompt:
        found = self._known.get(name)
        if found is None or found[0] is not request:  # names may come again
            found = self._known[name] = (request, self._read(request))
        return found[1]

    def _read(self, request: Any) -> Prompt:
        spans = spans_of(request.mm_features, self.runs)
        length, ids = request.num_prompt_tokens, request.prompt_token_ids
        if spans and ids is not None and Beams.looks_like(request.sampling_params):
            length = self._beams.prompt_of(ids, [feature.identifier for feature in request.mm_features])
            ids = ids[:length]
        return Prompt.of(length, ids, dropping(spans, request.num_prompt_tokens, self.drops), self.drops)


class Beams:
    """Tells where the prompt ends in what a beam search of vLLM asks for.

    Its every step is a request for one token, whose prompt is that of a step before and one token more.
    """

    def __init__(self, most: int = 4096):
        """Remember at most so many requests."""
        self._most = most
        self._lengths: OrderedDict[bytes, int] = OrderedDict()

    @staticmethod
    def looks_like(params: Any) -> bool:
        """Whether a request may be a step of a beam search: it wants one token, its alternatives, and no text."""
        return params is not None and params.max_tokens == 1 and not params.detokenize and bool(params.logprobs)

    def prompt_of(self, ids: Sequence[int], images: Sequence[str]) -> int:
        """The length of the prompt that a search began with.

        Args:
            ids: the tokens of one of its requests.
            images: what tells its images from others.
        """
        length = self._lengths.get(_digest(ids[:-1], images), len(ids))
        key = _digest(ids, images)
        self._lengths[key] = length
        self._lengths.move_to_end(key)
        while len(self._lengths) > self._most:
            self._lengths.popitem(last=False)
        return length


def _digest(ids: Sequence[int], images: Sequence[str]) -> bytes:
    text = "\0".join(images).encode() + b"\0" + np.asarray(ids, np.int64).tobytes()
    return hashlib.blake2b(text, digest_size=16).digest()
