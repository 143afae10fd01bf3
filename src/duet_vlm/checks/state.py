"""What a model was like, so that a check leaves it so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_MISSING = object()


class State:
    """Hooks, replaced methods, training flags, `config.duet` and generation settings of a model."""

    def __init__(self, model: Any):
        self.model = model
        self.modules = [(m, m.training, _hooks(m), _methods(m)) for m in model.modules()]
        self.duet = getattr(model.config, "duet", _MISSING)
        self.generation_config = model.generation_config

    def changes(self) -> list[str]:
        """What is there now and was not, or the reverse, in words."""
        changes = []
        for module, _, hooks, methods in self.modules:
            now, stocks = _hooks(module), _of_stock(module)
            changed = any(now[name].keys() - stocks != hooks[name].keys() - stocks for name in hooks)
            if changed or _methods(module) != methods:
                changes.append(f"{type(module).__name__} has other hooks or methods")
        if getattr(self.model.config, "duet", _MISSING) != self.duet:
            changes.append("config.duet is not what it was")
        return list(dict.fromkeys(changes))

    def restore(self) -> None:
        """Put everything back."""
        for module, training, hooks, methods in self.modules:
            module.training = training
            stocks = _of_stock(module)
            for name, were in hooks.items():
                now = getattr(module, name)
                stay = {number: hook for number, hook in now.items() if number in stocks}
                now.clear()
                now.update(were | stay)
            for name in _methods(module) - methods:
                del module.__dict__[name]
        if self.duet is not _MISSING:
            self.model.config.duet = self.duet
        elif hasattr(self.model.config, "duet"):
            del self.model.config.duet
        self.model.generation_config = self.generation_config


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[State]:
    """Whatever happens inside, the model is as before afterwards, and so are the random number generators."""
    state = State(model)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield state
        finally:
            state.restore()


def _hooks(module: Any) -> dict[str, dict[Any, Any]]:
    return {k: dict(v) for k, v in module.__dict__.items() if "_hooks" in k and isinstance(v, dict)}


def _of_stock(module: Any) -> set[int]:
    """Numbers of the hooks that transformers puts on its modules when they are first called, and relies on."""
    hooks = [pair for kind in _hooks(module).values() for pair in kind.items()]
    return {number for number, hook in hooks if str(getattr(hook, "__module__", "")).startswith("transformers.")}


def _methods(module: Any) -> set[str]:
    return {name for name, value in module.__dict__.items() if callable(value)}
