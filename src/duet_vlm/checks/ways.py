"""The pairs of ways that are compared: see `alike`. Each works on a stock and on a compressed model."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor

from ..families import family_of
from ..host import cache_argument, output_cache
from ..stage2.queries import IGNORED
from . import prompts
from .alike import LastTrace, Pairs, WayResult
from .kept import Kept
from .subject import Subject, chances

TURN = 5  # text tokens of a second turn
ROUNDS = 2  # times that each thread answers


def whole(subject: Subject, row: dict[str, Tensor], after: Tensor) -> Tensor:
    """(n + 1, V) log-probabilities without a cache: at the last token of a prompt, and at each of `after` (n,).

    Labels say that what follows the prompt does not ask, so it chooses no visual token.
    """
    prompt_length, row = row["input_ids"].shape[1], prompts.longer(row, after)
    labels = row["input_ids"].clone()
    labels[:, :prompt_length] = IGNORED
    with torch.no_grad():
        logits = subject.model(**row, labels=labels, use_cache=False).logits
    return chances(logits[0, prompt_length - 1 :])


def recomputed(subject: Subject, trace: LastTrace) -> Pairs:
    """Each prompt's answer with the cache, and in one forward without."""
    pairs = []
    for row in subject.singles:
        cached = WayResult(subject.steps(row)[0], Kept.of(trace()))
        pairs.append((cached, WayResult(whole(subject, row, subject.answer[:-1]), Kept.of(trace()))))
    return pairs


def batched(subject: Subject, trace: LastTrace) -> Pairs:
    """Each row of a batch padded on the left, and by itself."""
    steps, batch_trace = subject.steps(subject.batch), trace()
    length, pairs, images = subject.batch["input_ids"].shape[1], [], 0
    for number, row in enumerate(subject.singles):
        alone = WayResult(subject.steps(row)[0])
        if batch_trace is None or not batch_trace.samples[number].visual:
            pairs.append((WayResult(steps[number]), alone))  # text keeps no places
            continue
        alone.kept = Kept.of(trace())
        count = len(alone.kept.images) if alone.kept else 0
        kept = Kept.of(batch_trace, number, length - row["input_ids"].shape[1], slice(images, images + count))
        images += count
        pairs.append((WayResult(steps[number], kept), alone))
    return pairs


def second_turn(subject: Subject, trace: LastTrace) -> Pairs:
    """A second question and its answer on the cache of the first, and all of it in one forward without a cache."""
    row, answer = subject.singles[0], subject.answer
    out, kept = subject.forced(row), Kept.of(trace())
    turn = torch.cat([answer, subject.singles[-1]["input_ids"][0, -TURN:]])
    following = family_of(subject.model.config).without_pixels(prompts.longer(row, turn))
    steps = subject.steps(following | cache_argument(type(subject.model).forward, output_cache(out)))[0]
    again = whole(subject, row, torch.cat([turn, answer[:-1]]))
    return [(WayResult(steps, kept), WayResult(again[-len(answer) :], Kept.of(trace())))]


def beams(subject: Subject, trace: LastTrace) -> Pairs:
    """The scores that beam search gives two sequences, and the mean log-probability of their tokens by themselves."""
    row = subject.singles[0]
    out, length = subject.beams(row), row["input_ids"].shape[1]
    kept, pairs = Kept.of(trace()), []
    for sequence, score in zip(out.sequences, out.sequences_scores, strict=True):
        tokens = sequence[length:]
        steps = subject.steps(row, tokens)[0]
        mean = steps.gather(1, tokens[:, None].to(steps.device)).mean()
        alone = Kept.of(trace())
        if kept is not None and alone is not None:  # every beam encoded the picture for itself
            kept.images = kept.images[: len(alone.images)]
        pairs.append((WayResult(score.float()[None], kept), WayResult(mean[None], alone)))
    return pairs


def threads(subject: Subject, trace: LastTrace) -> Pairs:
    """Two threads that answer different prompts at once, several times, and each prompt alone."""
    rows = subject.singles[:2]
    alone = [subject.steps(row) for row in rows]
    barrier, interval = Barrier(len(rows)), sys.getswitchinterval()

    def answer(row: dict[str, Tensor]) -> list[Tensor]:
        barrier.wait()
        return [subject.steps(row) for _ in range(ROUNDS)]

    sys.setswitchinterval(1e-4)  # threads take turns often, so that what they share shows
    try:
        with ThreadPoolExecutor(len(rows)) as pool:
            together = list(pool.map(answer, rows))
    finally:
        sys.setswitchinterval(interval)
    return [(WayResult(a), WayResult(b)) for got, b in zip(together, alone, strict=True) for a in got]
