"""What is to be kept, as it is asked. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DuetError


@dataclass(frozen=True)
class Goal:
    """What is to be kept.

    Attributes:
        share: of the full model's accuracy; or of its answers.
        agree: whether it is of its answers, with the guard's help.
        confidence: of the promise.
    """

    share: float
    agree: bool = False
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for name, value in (("--agree" if self.agree else "--retain", self.share), ("--confidence", self.confidence)):
            if not 0 < value < 1:
                raise DuetError(f"{name} {value:g} must be a share above 0 and below 1, for example 0.9.")
