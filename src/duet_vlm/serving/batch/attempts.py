"""What workers began and did not end, counted where it outlives them. Imports nothing of ours."""

from __future__ import annotations

from typing import Any


class Attempts:
    """Counts, by name, the attempts in a row that came to no end."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def begin(self, name: str) -> int:
        """The number of attempts that came to no end, this one included."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    def end(self, name: str) -> None:
        """The attempt came to its end, whatever it found."""
        self.counts.pop(name, None)


class FarAttempts:
    """The same in a process of its own, where Ray keeps it; if that has ended, each attempt is the first."""

    def __init__(self, ray: Any):
        self._actor = ray.remote(num_cpus=0)(Attempts).remote()

    def begin(self, name: str) -> int:
        """As of `Attempts`."""
        import ray

        try:
            count: int = ray.get(self._actor.begin.remote(name))
        except ray.exceptions.RayActorError:
            return 1
        return count

    def end(self, name: str) -> None:
        """As of `Attempts`."""
        self._actor.end.remote(name)
