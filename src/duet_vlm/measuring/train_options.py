"""How training steps are timed, and what may be timed so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TUNES = ("lora", "full")


@dataclass(frozen=True)
class TrainOptions:
    """How to measure.

    Attributes:
        runs: timed rounds, each of which runs one step of every setting; medians are reported.
        batch_size: rows, one image each.
        text_tokens: text tokens per row; the last `answer_tokens` of them are the answer.
        tunes: "lora" (adapters on every projection of the language model) and "full".
        rank: of the adapters.
        checkpointing: whether layers are computed again in the backward pass instead of stored.
        dtype, device, threads: where and in what to compute; None leaves torch's number of threads.
    """

    runs: int = 5
    batch_size: int = 1
    text_tokens: int = 64
    answer_tokens: int = 32
    tunes: tuple[str, ...] = TUNES
    rank: int = 16
    checkpointing: bool = False
    dtype: str = "bfloat16"
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("runs", "batch_size", "answer_tokens", "rank"):
            if getattr(self, name) < 1:
                raise DuetError(f"{name} {getattr(self, name)} must be at least 1.")
        if self.answer_tokens > self.text_tokens - 6:
            raise DuetError(
                f"answer_tokens {self.answer_tokens} leave no question: text_tokens {self.text_tokens} hold both and "
                "a few tokens before the image, so give at least 6 more."
            )
        for tune in self.tunes:
            if tune not in TUNES:
                raise DuetError(f"tune {tune!r} is unknown: choose one of {', '.join(TUNES)}.")


def check_timed(config: PreTrainedConfig, grid: Any = None, tiles: Any = None, size: Any = None) -> None:
    """Raises ValueError for a model whose training steps cannot be compared with FLOPs here."""
    from ..families import FAMILIES, family_of

    if not family_of(config).every_patch:
        known = " and ".join(name for name, family in FAMILIES.items() if family.every_patch)
        raise DuetError(
            f"--train times models of type {known}, and this one is a {config.model_type}: leave "
            "--train out to time its prefill."
        )
    if grid is not None or tiles is not None or size is not None:
        raise DuetError(f"images of a {config.model_type} have one size here: leave --grid, --tiles and --image out.")
