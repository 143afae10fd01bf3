"""DUET-VLM for stock transformers models: merge visual tokens at the encoder, drop them inside the language model."""

from typing import TYPE_CHECKING, Any

from .config.own_methods import register_stage1, register_stage2
from .errors import DuetError
from .presets import Drop, DuetConfig
from .version import __version__

if TYPE_CHECKING:
    from .applying import apply
    from .checks.checking import check
    from .engine.handle import Duet, handle_of
    from .engine.trace import Trace
    from .measuring.depth import reading_depth

__all__ = [
    "Drop",
    "Duet",
    "DuetConfig",
    "DuetError",
    "Trace",
    "__version__",
    "apply",
    "check",
    "handle_of",
    "reading_depth",
    "register_stage1",
    "register_stage2",
]

_HOMES = {
    "Duet": "engine.handle",
    "apply": "applying",
    "check": "checks.checking",
    "Trace": "engine.trace",
    "handle_of": "engine.handle",
    "reading_depth": "measuring.depth",
}


def __getattr__(name: str) -> Any:
    # what imports torch comes when it is asked for, so that `duet --help` is immediate
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    # what is public, and what every module has
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
