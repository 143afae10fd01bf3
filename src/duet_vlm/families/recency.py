"""Which images of a prompt are older ones, said to encoders while they work: `history` gives these a smaller budget.

It lives in a context variable from the call of `generate` or of the core model to its end, like all that encoders are
told (`audience`). What a cache holds is no part of the prompt: it stays as it was decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar

import torch
from torch import Tensor

Older = dict[str, list[bool]]  # modality -> of each visual token of the prompt, row by row, whether more is behind it

_older: ContextVar[Older | None] = ContextVar("duet_vlm_older", default=None)


@contextlib.contextmanager
def within_prompt(older: Older | None) -> Iterator[None]:
    """Inside, encoders know the prompt that their images stand in; None changes nothing."""
    token = None if older is None else _older.set(older)
    try:
        yield
    finally:
        if token is not None:
            _older.reset(token)


def known() -> bool:
    """Whether a prompt is known."""
    return _older.get() is not None


def is_older(modality: str, token: int) -> bool:
    """Whether the row of a prompt goes on with another image behind one whose last visual token is number `token`.

    Of a prompt that nobody knows, and behind its end, every image is the newest.
    """
    flags = (_older.get() or {}).get(modality, [])
    return token < len(flags) and flags[token]


def older_tokens(ids: Tensor, placeholders: Mapping[str, int], whole_runs: Collection[str]) -> Older:
    """Read from ids (B, S) what `is_older` asks for.

    Args:
        placeholders: modality -> the id of its visual tokens.
        whole_runs: modalities of which an image or video is an unbroken run of visual tokens, however many parts the
            encoder hands over.
    """
    ids = ids.cpu()
    every = torch.isin(ids, torch.tensor(list(placeholders.values())))
    older: Older = {}
    for modality, placeholder in placeholders.items():
        flags = older[modality] = []
        for row, seen in zip((ids == placeholder).tolist(), every.tolist(), strict=True):
            last = max((place for place, flag in enumerate(seen) if flag), default=-1)
            ends: list[int] = []  # of each run, or each token
            for place in range(len(row) - 1, -1, -1):
                if row[place]:
                    goes_on = modality in whole_runs and place + 1 < len(row) and row[place + 1]
                    ends.append(ends[-1] if goes_on else place)
            flags += [end < last for end in reversed(ends)]
    return older
