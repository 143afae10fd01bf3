"""Several processes, as `accelerate launch` (or torchrun) starts them: who this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """One of `count` processes; `local` is its number on this machine.

    They share nothing but the output folder, so none has to wait for another's network, and a new start may have
    another number of them.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def this(cls) -> Process:
        """Read from the environment that the launcher sets."""
        return cls(*(int(os.environ.get(name, default)) for name, default in _VARIABLES))

    @property
    def is_main(self) -> bool:
        """Whether this is the one that reports."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """The device of this process: with several of them, each has a GPU of its own."""
        return f"{device}:{self.local}" if self.count > 1 and device == "cuda" else device


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
