"""The settings in a model's config, where `save_pretrained` finds them, and what stood there before."""

from __future__ import annotations

from typing import Any

from ..config.settings import Settings

NAME = "duet"  # of the config's attribute


class Noted:
    """What is written into one model's config, and how it is taken back."""

    def __init__(self) -> None:
        self._wrote = False
        self._before: Any = None

    def write(self, config: Any, settings: Settings) -> None:
        """Write settings that can be saved; none where they cannot.

        Args:
            config: the model's.
            settings: what runs on it now.
        """
        if not self._wrote:
            self._before = getattr(config, NAME, None)
        if settings.savable:
            setattr(config, NAME, settings.to_dict())
        elif hasattr(config, NAME):
            delattr(config, NAME)
        self._wrote = True

    def take_back(self, config: Any) -> None:
        """Give the config what it had before the first `write`."""
        if self._wrote and self._before is not None:
            setattr(config, NAME, self._before)
        elif self._wrote and hasattr(config, NAME):
            delattr(config, NAME)
        self._wrote = False
