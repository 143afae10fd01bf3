"""Which engine serves a model: vLLM where it can, else transformers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import DuetError, shown

ENGINES = ("auto", "vllm", "transformers")
# families that the plug-in for vLLM knows; of LLaVA only what has a CLIP tower
FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl")


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


def choose(asked: str, config: Any, adapter: bool, here: bool = True) -> Engine:
    """The engine that serves a model.

    Args:
        asked: one of `ENGINES`.
        config: the model's.
        adapter: whether the model is a folder of LoRA adapters.
        here: whether vLLM has to be installed, as it has where it shall run and not only be shown.

    Raises:
        DuetError: vLLM is asked for and cannot serve the model, or is not there.
    """
    if asked == "transformers":
        return Engine("transformers", "it was asked for")
    against = obstacle(config, adapter) or (None if not here or _installed() else "vLLM is not installed here")
    if asked == "vllm":
        if against is not None:
            raise DuetError(f"engine 'vllm' cannot be had ({against}): use --engine transformers.")
        return Engine("vllm", "it was asked for")
    if against is not None:
        return Engine("transformers", against)
    return Engine("vllm", "vLLM is installed and knows the model's family")


def obstacle(config: Any, adapter: bool) -> str | None:
    """Why vLLM cannot serve a model compressed, as the end of a sentence; None where it can."""
    if adapter:
        return "LoRA adapters are not served compressed by vLLM, merge them"
    kind = config.model_type
    if kind not in FAMILIES:
        return f"models of type {kind!r} are not served compressed by vLLM"
    tower = getattr(config.vision_config, "model_type", "")
    if kind == "llava" and tower != "clip_vision_model":
        return f"LLaVA with a tower of type {tower!r} is not served compressed by vLLM"
    return None


def _installed() -> bool:
    return find_spec("vllm") is not None
