"""The command line that serves a model in vLLM with the compression on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..config.budget_rule import SAVED
from ..errors import DuetError
from ..inputs.choice import Chosen
from ..inputs.model_folders import DEMO, existing
from ..inputs.prompts import context
from .limits import Limits

NOWHERE = "nowhere.invalid"  # a host that never is (RFC 6761): with it as the only one allowed, no URL is fetched
DRAIN = 600  # seconds that requests have to end after SIGTERM


@dataclass(frozen=True)
class Place:
    """Where to serve.

    Attributes:
        host: the address to listen at.
        port: the port.
    """

    host: str
    port: int


def environment(limits: Limits) -> dict[str, str]:
    """What vLLM reads from its environment."""
    return {"VLLM_MAX_IMAGE_PIXELS": str(limits.image_pixels)}


def arguments(model: str, config: Any, chosen: Chosen, limits: Limits, place: Place, dtype: str) -> list[str]:
    """The words behind `python`.

    Args:
        model: as `--model` names it.
        config: its config.
        chosen: the settings to serve it with.
        limits: of requests; those that vLLM has no option for are left to vLLM.
        place: where to serve.
        dtype: of the weights, as the commands name it.

    Raises:
        DuetError: pictures shall be fetched from other hosts, which vLLM would do from private addresses, too.
    """
    if limits.urls:
        raise DuetError(
            "--allow-urls is for the transformers engine, since vLLM would ask private addresses, too: leave it out, "
            "or use --print and name the hosts you trust by --allowed-media-domains."
        )
    longest = context(config)
    most = limits.prompt_tokens + limits.new_tokens
    most = most if longest is None else min(most, longest)
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", existing(model), "--served-model-name", model]
    # the demonstration model is saved in half precision to be small; it computes in full
    dtype = "float32" if model == DEMO and dtype == "auto" else dtype
    words += ["--host", place.host, "--port", str(place.port), "--dtype", dtype, "--max-model-len", str(most)]
    words += ["--limit-mm-per-prompt", json.dumps({"image": limits.images})]
    words += ["--allowed-media-domains", NOWHERE, "--shutdown-timeout", str(DRAIN)]
    if chosen.method != SAVED:
        settings = chosen.config.to_dict() if _compresses(chosen) else None
        words += ["--hf-overrides", json.dumps({"duet": settings})]
    if model == DEMO:
        # its pictures are resized by a filter that torchvision lacks
        words += ["--mm-processor-kwargs", json.dumps({"backend": "pil"})]
    return words


def _compresses(chosen: Chosen) -> bool:
    return bool(chosen.config.merges or chosen.config.drops)
