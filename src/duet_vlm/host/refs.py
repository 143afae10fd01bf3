"""References and replacements that neither keep a model alive nor stop it from being copied or saved."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from ..errors import DuetError


class Ref:
    """A weak reference that a deep copy and a pickle carry over to the copied object.

    What hangs on a module (hooks) would keep the module alive in a circle if it held it, so that memory came back only
    when the garbage collector ran.
    """

    def __init__(self, target: Any):
        self._target = weakref.ref(target)

    def __call__(self) -> Any:
        target = self._target()
        if target is None:
            raise DuetError("the model of this handle is gone: keep the model, and apply to it again.")
        return target

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self._target()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._target = weakref.ref(state["target"]) if state["target"] is not None else lambda: None  # type: ignore[assignment]


class MethodOverride:
    """A method of one object, replaced until `remove()`: for what happens in no module that could be hooked.

    Args:
        owner: the object; its class is left alone.
        name: of the method.
        method: called instead of it.
    """

    def __init__(self, owner: Any, name: str, method: Callable[..., Any]):
        self.owner, self.name = Ref(owner), name
        self.before = owner.__dict__.get(name)  # somebody else may have replaced it, too
        setattr(owner, name, method)

    def remove(self) -> None:
        owner = self.owner()
        if self.before is None:
            owner.__dict__.pop(self.name, None)
        else:
            setattr(owner, self.name, self.before)


class Around:
    """A callable in the place of a method of one object, with the method's signature; `around` says what it does.

    Args:
        owner: the object.
        name: of its method.
        around: `(method, *args, **kwargs) -> result`, a bound method of what belongs to the object.
    """

    def __init__(self, owner: Any, name: str, around: Callable[..., Any]):
        self.owner, self.name, self.around = Ref(owner), name, around
        self.inner = owner.__dict__.get(name)

    @property
    def method(self) -> Callable[..., Any]:
        """What stood there before, bound."""
        if self.inner is not None:
            return self.inner  # type: ignore[no-any-return]
        owner = self.owner()
        return MethodType(getattr(type(owner), self.name), owner)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.method)  # callers choose arguments by it

    @torch.compiler.disable(recursive=False)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.method, *args, **kwargs)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> MethodOverride:
    """Put `around` around the method `name` of one object, until the result's `remove()`."""
    owner = getattr(owner, "_orig_mod", owner)  # a compiled module asks the one inside
    return MethodOverride(owner, name, Around(owner, name, around))
