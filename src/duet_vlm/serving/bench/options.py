"""How serving is measured, and which options of `duet bench` have no meaning there. Loads neither torch nor vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DuetError, shown
from ..engines import installed

ENGINES = ("transformers", "vllm")
CONCURRENCY = (1, 8, 32)
EACH = 2
SHAPES = (
    "llava-1.5-7b",
    "llava-1.5-13b",
    "qwen2.5-vl-7b",
    "qwen3-vl-8b",
)  # whose processors can be made without their files


@dataclass(frozen=True)
class ServingOptions:
    """How to measure.

    Attributes:
        runs: timed rounds, each of which runs every setting at every concurrency once.
        concurrency: how many clients ask at a time, in the order of the rounds. A client asks again as soon as it has
            its answer.
        requests: how often each client asks in a round.
        text_tokens: text tokens of a prompt, beside one image.
        decode_steps: tokens of an answer after its first.
        dtype: of the weights.
        threads: of the CPU; None leaves torch's number.
    """

    runs: int = 5
    concurrency: tuple[int, ...] = CONCURRENCY
    requests: int = EACH
    text_tokens: int = 64
    decode_steps: int = 16
    dtype: str = "bfloat16"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("runs", "requests", "decode_steps"):
            if getattr(self, name) < 1:
                raise DuetError(f"{name} {getattr(self, name)} must be at least 1.")
        if self.text_tokens < 8:
            raise DuetError(f"text_tokens {self.text_tokens} are too few beside an image in vLLM: give 8 or more.")
        check_concurrency(self.concurrency)

    @property
    def answer_tokens(self) -> int:
        """Tokens of an answer."""
        return self.decode_steps + 1


def check_concurrency(listed: Sequence[int]) -> None:
    """Raises DuetError for no numbers, one below 1, or one given twice."""
    if not listed:
        raise DuetError("concurrency is empty: give one number or more, as in --concurrency 1 8 32.")
    for count in listed:
        if count < 1:
            raise DuetError(f"concurrency {count} must be at least 1.")
        if list(listed).count(count) > 1:
            raise DuetError(f"concurrency {count} is given twice: give each once.")


def check_installed() -> None:
    """Raises DuetError where vLLM is not there."""
    if not installed():
        raise DuetError(
            "vLLM is not installed here, and --engine vllm times it: install duet-vlm in vLLM's own environment "
            "(docs/serving.md), or leave the option out."
        )


def check_shape(name: str) -> None:
    """Raises DuetError for a shape that no folder can be made of."""
    if name not in SHAPES:
        raise DuetError(
            f"shape {name!r} is not measured in vLLM, which needs a processor's files: choose one of "
            f"{', '.join(SHAPES)}, or give --model a folder."
        )


def check_engine(engine: str, for_vllm: dict[str, object], not_for_vllm: dict[str, object]) -> None:
    """Refuse options of one engine that are given to the other.

    Args:
        engine: one of `ENGINES`.
        for_vllm: options by name that vLLM alone has; None, False or empty where they are not given.
        not_for_vllm: the same of options that it does not have.

    Raises:
        DuetError: an unknown engine, or an option that it does not have.
    """
    if engine not in ENGINES:
        raise DuetError(f"engine {shown(engine)} is unknown: choose one of {', '.join(ENGINES)}.")
    strange, other = (not_for_vllm, "transformers") if engine == "vllm" else (for_vllm, "vllm")
    for name, value in strange.items():
        if value is not None and value is not False and value != []:
            given = name if value is True else f"{name} {_written(value)}"
            raise DuetError(f"{given} is for --engine {other}, and {engine} is timed: leave one of them out.")


def _written(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
