"""Generation settings of lmms-eval's tasks, as `generate` takes them."""

from __future__ import annotations

from typing import Any

DEFAULT_NEW_TOKENS = 1024
SAMPLING = ("temperature", "top_p", "top_k")


def generation_settings(task_settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of `generate`, and the strings that end an answer.

    What tasks give beyond these (for example `image_aspect_ratio`) belongs to other models and is left out. Greedy
    unless the task samples; a temperature of 0 is greedy, whatever `do_sample` says.
    """
    until = task_settings.get("until") or []
    temperature = float(task_settings.get("temperature") or 0)
    sample = bool(task_settings.get("do_sample", temperature > 0)) and (
        "temperature" not in task_settings or temperature > 0
    )
    chosen: dict[str, Any] = {
        "max_new_tokens": task_settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS,
        "num_beams": task_settings.get("num_beams") or 1,
        "do_sample": sample,
    }
    if sample:
        chosen |= {name: task_settings[name] for name in SAMPLING if task_settings.get(name) is not None}
    else:
        chosen |= dict.fromkeys(SAMPLING)  # a model's own defaults for sampling would only raise warnings
    return chosen, [until] if isinstance(until, str) else [text for text in until if text]


def cut(answer: str, until: list[str]) -> str:
    """The answer up to the first of the strings that end it, without the white space around."""
    answer = answer.strip()
    for text in until:
        answer = answer.split(text, 1)[0]
    return answer.strip()
