"""How often workers began something, counted where it outlives them. Imports nothing of ours."""

from __future__ import annotations

from typing import Any


class Attempts:
    """Counts attempts by name; Ray keeps it in a process of its own."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, name: str) -> int:
        """The number of attempts with this one."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]


def begun(attempts: Any, name: str) -> int:
    """Count one attempt more from inside a worker; where the counter has ended, it is the first."""
    import ray

    try:
        count: int = ray.get(attempts.add.remote(name))
    except ray.exceptions.RayActorError:
        return 1
    return count
