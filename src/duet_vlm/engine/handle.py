"""The handle that `apply` returns: what a user asks of a compression that is on a model."""

from __future__ import annotations

from typing import Any

from ..config.arguments import check_config
from ..config.settings import Settings
from ..errors import DuetError
from ..host import hooks_of
from .hooks import Engine
from .plan import Plan
from .trace import Trace


class Duet:
    """The handle of a compressed model, which `duet_vlm.apply` returns. As a context manager it removes itself.

    Settings change between forward passes: `use()` and `remove()` wait until the passes of other threads are over. A
    cache that holds a compressed prompt goes on under whatever settings are applied. The handle keeps the model alive,
    the model does not keep the handle: lose it, and `duet_vlm.handle_of(model)` finds another.

    Attributes:
        model: the compressed model.
        engine: the hooks on it; not part of the public interface.

    Example:
        >>> import duet_vlm
        >>> from duet_vlm import DuetConfig, Drop
        >>> from duet_vlm.demo.model import load
        >>> model, processor = load()
        >>> handle = duet_vlm.apply(model, DuetConfig(drops=[Drop(6, 0.5)], query="last"))
        >>> handle.layers, handle.compresses, handle.renumbers, handle.trace
        (12, True, True, None)
        >>> handle.use(DuetConfig(dominant=40, contextual=8))
        >>> model.config.duet["dominant"]
        40
        >>> handle.remove()
        >>> handle.applied, hasattr(model.config, "duet")
        (False, False)
    """

    def __init__(self, model: Any, engine: Engine) -> None:
        self.model, self.engine = model, engine

    @property
    def config(self) -> Settings:
        """The settings that are applied, or were last."""
        return self.engine.plan.config

    @property
    def tokenizer(self) -> Any:
        """The tokenizer or processor that `apply` was given, or None."""
        return self.engine.plan.tokenizer

    @property
    def layers(self) -> int:
        """How many decoder layers the language model has."""
        return self.engine.plan.layers

    @property
    def compresses(self) -> bool:
        """Whether the settings merge or drop anything; `DuetConfig()` does neither."""
        return self.engine.plan.compresses

    @property
    def renumbers(self) -> bool:
        """Whether positions are renumbered without gaps once tokens are gone (docs/method.md, 2.4)."""
        return self.engine.plan.renumbers

    @property
    def applied(self) -> bool:
        """Whether the compression of this handle is on the model now; False after `remove()`."""
        return self.engine.applied

    @property
    def trace(self) -> Trace | None:
        """What was kept of the last prompt that began, as plain data.

        None before the first prompt, if the prompt had no image, and if its forward pass did not end. Reading it copies
        the scores from the model's device.
        """
        last = self.engine.last
        return None if last is None else Trace.of(last, self.layers)

    def use(self, config: Settings) -> None:
        """Go on with other settings, from the next forward pass on; `model.config.duet` follows.

        Args:
            config: the new settings, a `DuetConfig`.

        Raises:
            DuetError: the settings do not fit the model, or the handle was removed. Everything stays as it was.
        """
        if not self.applied:
            raise DuetError("this handle was removed, so there is nothing to change: call duet_vlm.apply again.")
        self.engine.use(Plan.of(self.model, check_config(config), self.tokenizer))

    def remove(self) -> None:
        """Take the compression off: the model is stock again, and `model.config.duet` is what it was before `apply`.

        A second call does nothing.
        """
        if self.applied:
            self.engine.remove()

    def __enter__(self) -> Duet:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Duet: {'applied' if self.applied else 'removed'}, {self.config!r}>"


def handle_of(model: Any) -> Duet | None:
    """Find the compression that is on a model, or on any part that it shares with another model.

    Args:
        model: any torch module; a copy of a compressed model is compressed too, and has a compression of its own.

    Returns:
        A handle of it, or None where the model is stock.

    Example:
        >>> import duet_vlm
        >>> from duet_vlm.demo.model import load
        >>> model, processor = load()
        >>> print(duet_vlm.handle_of(model))
        None
        >>> handle = duet_vlm.apply(model, duet_vlm.DuetConfig(dominant=40))
        >>> duet_vlm.handle_of(model).config == handle.config
        True
        >>> duet_vlm.handle_of(model).remove()
    """
    for module in model.modules():
        for hook in (hook for hooks in hooks_of(module) for hook in hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, Engine):
                return Duet(model, owner)
    return None
