"""The command line that serves a model in vLLM with the compression on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..config.budget_rule import SAVED
from ..inputs.choice import Chosen
from ..inputs.model_folders import DEMO, existing
from ..inputs.prompts import context
from .limits import Limits

NOWHERE = "nowhere.invalid"  # a host that never is (RFC 6761): with it as the only one allowed, no URL is fetched
GATE = "duet_vlm.serving.vllm_gate.Gate"
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
    """What vLLM and the gate in front of it read from their environment."""
    return {"VLLM_MAX_IMAGE_PIXELS": str(limits.image_pixels), **limits.environment()}


def arguments(
    model: str, config: Any, chosen: Chosen, limits: Limits, place: Place, dtype: str, queue: int | None = None
) -> list[str]:
    """The words behind `python`.

    Args:
        model: as `--model` names it.
        config: its config.
        chosen: the settings to serve it with.
        limits: of requests; vLLM itself fetches no picture, the gate does where that is allowed.
        place: where to serve.
        dtype: of the weights, as the commands name it.
        queue: the most requests that run and wait; as many as come if None.
    """
    longest = context(config)
    most = limits.prompt_tokens + limits.new_tokens
    most = most if longest is None else min(most, longest)
    kinds = {"image": limits.images} | ({"video": 0} if hasattr(config, "video_token_id") else {})
    # the command `vllm serve` does not start where vLLM was installed by another name, as its builds for CPUs are
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", existing(model), "--served-model-name", model]
    # the demonstration model is saved in half precision to be small; it computes in full
    dtype = "float32" if model == DEMO and dtype == "auto" else dtype
    words += ["--host", place.host, "--port", str(place.port), "--dtype", dtype, "--max-model-len", str(most)]
    words += ["--limit-mm-per-prompt", json.dumps(kinds)]
    words += [] if queue is None else ["--max-num-queued-reqs", str(queue)]
    words += ["--middleware", GATE, "--allowed-media-domains", NOWHERE, "--shutdown-timeout", str(DRAIN)]
    if chosen.method != SAVED:
        settings = chosen.config.to_dict() if _compresses(chosen) else None
        words += ["--hf-overrides", json.dumps({"duet": settings})]
    if model == DEMO:
        # its pictures are resized by a filter that torchvision lacks
        words += ["--mm-processor-kwargs", json.dumps({"backend": "pil"})]
    return words


def _compresses(chosen: Chosen) -> bool:
    return bool(chosen.config.merges or chosen.config.drops)
