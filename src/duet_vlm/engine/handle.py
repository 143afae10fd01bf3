"""The handle that `apply` returns: what a user asks of a compression that is on a model."""

from __future__ import annotations

from typing import Any

from ..config.arguments import check_config
from ..config.settings import Settings
from ..errors import DuetError
from .hooks import Engine
from .plan import Plan
from .trace import Trace


class Duet:
    """A config applied to a model. `remove()` takes it off again; also a context manager.

    Settings change between forward passes: `use()` and `remove()` wait for those of other threads. A cache that holds a
    compressed prompt goes on under whatever settings are applied. The handle keeps the model; the model does not keep
    the handle.

    Attributes:
        model: the model.
        engine: what hangs on it.
    """

    def __init__(self, model: Any, engine: Engine) -> None:
        self.model, self.engine = model, engine

    @property
    def config(self) -> Settings:
        """The applied settings."""
        return self.engine.plan.config

    @property
    def tokenizer(self) -> Any:
        """What finds the words of a question."""
        return self.engine.plan.tokenizer

    @property
    def layers(self) -> int:
        """Decoder layers of the model."""
        return self.engine.plan.layers

    @property
    def compresses(self) -> bool:
        """Whether anything is merged or dropped."""
        return self.engine.plan.compresses

    @property
    def renumbers(self) -> bool:
        """Whether positions close the gaps that dropped tokens leave."""
        return self.engine.plan.renumbers

    @property
    def applied(self) -> bool:
        """Whether the model is compressed by this handle now."""
        return self.engine.applied

    @property
    def trace(self) -> Trace | None:
        """What the last prompt's images kept, as plain data; None where it had none, or its pass did not end."""
        last = self.engine.last
        return None if last is None else Trace.of(last, self.layers)

    def use(self, config: Settings) -> None:
        """Go on with other settings from the next forward pass on; `model.config.duet` follows.

        Raises:
            DuetError: settings that do not fit the model, or a handle that was removed; everything stays as it was.
        """
        if not self.applied:
            raise DuetError("this handle was removed, so there is nothing to change: call duet_vlm.apply again.")
        self.engine.use(Plan.of(self.model, check_config(config), self.tokenizer))

    def remove(self) -> None:
        """Take the compression off; the model is stock again, and `model.config.duet` what it was before.

        Harmless when called twice.
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
    """The handle of the compression that is on a model or on any part of it, also after a copy; None for none."""
    for module in model.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, Engine):
                return Duet(model, owner)
    return None
