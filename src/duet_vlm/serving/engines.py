"""Which engine serves a model: vLLM where it can, else transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import DuetError, shown
from ..inputs.model_folders import adapted, existing
from ..presets import DuetConfig

ENGINES = ("auto", "vllm", "transformers")


@dataclass(frozen=True)
class Engine:
    """The engine that serves, and why.

    Attributes:
        name: "vllm" or "transformers".
        why: the same as the end of a sentence.
    """

    name: str
    why: str


def check_engine(name: str) -> None:
    """Raises DuetError for an engine that is not in `ENGINES`."""
    if name not in ENGINES:
        raise DuetError(f"engine {shown(name)} is unknown: choose one of {', '.join(ENGINES)}.")


def choose(asked: str, config: Any, settings: DuetConfig, adapter: bool, here: bool = True) -> Engine:
    """The engine that serves a model.

    Args:
        asked: one of `ENGINES`.
        config: the model's.
        settings: what it is to be compressed by.
        adapter: whether the model is a folder of LoRA adapters.
        here: whether vLLM has to be installed, as it has where it shall run and not only be shown.

    Raises:
        DuetError: sound is to be compressed; or vLLM is asked for and cannot serve the model, or is not there.
    """
    if settings.audio_keep is not None:
        raise DuetError(
            f"audio_keep {settings.audio_keep:g} compresses sound, and duet serve takes none: leave audio_keep out of "
            "the model's settings, or give a budget beside them."
        )
    if asked == "transformers":
        return Engine("transformers", "it was asked for")
    against = obstacle(config, settings, adapter) or (_absent() if here else None)
    if asked == "vllm":
        if against is not None:
            raise DuetError(f"engine 'vllm' cannot be had ({against}): use --engine transformers.")
        return Engine("vllm", "it was asked for")
    if against is not None:
        return Engine("transformers", against)
    return Engine("vllm", "vLLM is installed and can serve the model")


def obstacle(config: Any, settings: DuetConfig, adapter: bool) -> str | None:
    """Why vLLM cannot serve a model with these settings, as the end of a sentence; None where it can."""
    from ..vllm import SERVED
    from ..vllm.settings import check_fits

    if adapter:
        return "vLLM does not serve LoRA adapters compressed, merge them into their model"
    if not set(config.architectures or ()) & set(SERVED):
        return f"vLLM does not serve models of type {config.model_type!r} compressed"
    try:
        check_fits(settings, config)
    except DuetError as error:
        return str(error).rstrip(".")
    return None


def check_served(config: Any, listed: Sequence[DuetConfig], model: str | None) -> None:
    """Raises DuetError where vLLM cannot serve a model with each of some settings.

    Args:
        config: the model's, or a shape's.
        listed: the settings.
        model: as `--model` names it; None for a shape.
    """
    adapter = model is not None and adapted(existing(model)) is not None
    for settings in listed:
        against = obstacle(config, settings, adapter)
        if against is not None:
            raise DuetError(f"engine 'vllm' cannot be had ({against}): use --engine transformers.")


def _absent() -> str | None:
    """Why vLLM would not run compressed here, as the end of a sentence; None where it would."""
    if not installed():
        return "vLLM is not installed here"
    plugins = os.environ.get("VLLM_PLUGINS")
    if plugins is not None and "duet" not in plugins.split(","):
        return f"VLLM_PLUGINS={plugins} leaves out 'duet', the plug-in that compresses"
    return None


def installed() -> bool:
    """Whether vLLM is there."""
    return find_spec("vllm") is not None
