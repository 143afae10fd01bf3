"""DUET-VLM for stock transformers models: merge visual tokens at the encoder, drop them inside the language model."""

from typing import TYPE_CHECKING, Any

from .config import Drop, DuetConfig
from .errors import DuetError

if TYPE_CHECKING:
    from .applying import apply
    from .checks.checking import check
    from .handle import Duet, handle_of
    from .trace import Trace

__version__ = "0.1.0"
__all__ = ["Drop", "Duet", "DuetConfig", "DuetError", "Trace", "apply", "check", "handle_of"]

_HOMES = {
    "Duet": "handle",
    "apply": "applying",
    "check": "checks.checking",
    "Trace": "trace",
    "handle_of": "handle",
}


def __getattr__(name: str) -> Any:
    # what imports torch comes when it is asked for, so that `duet --help` is immediate
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
