"""Where a model's files are, and what reading them may raise. Loads neither torch nor transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ..errors import DuetError, reason, short

DEMO, PAGES = "demo", "pages"  # the names, in every command, of the demonstration model and of the one for pages
DEMO_FOLDER, PAGES_FOLDER = (Path(__file__).parents[1] / name / "weights" for name in (DEMO, PAGES))
SHIPPED = {DEMO: DEMO_FOLDER, PAGES: PAGES_FOLDER}
NO_HUB = " or in its cache; where there is no connection, HF_HUB_OFFLINE=1 in the environment spares the attempts."


def existing(model: str) -> str:
    """The folder or hub id that a command's --model names.

    Raises:
        DuetError: neither.
    """
    if model in SHIPPED:
        if not (SHIPPED[model] / "config.json").is_file():
            beside = ", which comes with a clone of the repository" if model == PAGES else ""
            raise DuetError(f"this installation has no model {model!r}{beside}: give --model, a folder or a hub id.")
        return str(SHIPPED[model])
    path = Path(model).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise DuetError(
                f"model folder {model!r} has no config.json: give a folder written by save_pretrained, or a hub id."
            )
        return str(path)
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1 or not model.strip():
        raise DuetError(f"model {model!r} is no folder: give one written by save_pretrained, or a hub id.")
    if "/" not in model:
        raise DuetError(
            f"model {model!r} is no folder, and an id on the hub is OWNER/NAME: give a folder written by "
            f"save_pretrained, such an id, {DEMO} for the demonstration model, or {PAGES} for the one that reads pages."
        )
    return model


def adapted(source: str) -> str | None:
    """The model that a folder of LoRA adapters belongs to; None where it is no such folder.

    Raises:
        ValueError: the folder does not say.
    """
    file = Path(source) / "adapter_config.json"
    if not file.is_file() or (Path(source) / "config.json").is_file():
        return None
    base = reading(source, lambda: json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path"))
    if not base:
        raise DuetError(f"adapter {source!r} does not name its base model: merge it and give the resulting folder.")
    return str(base)


def brings_settings(model: str) -> bool | None:
    """Whether a model brings settings for `apply`, as its files say; None where they would have to be fetched.

    Raises:
        DuetError: `model` names neither a folder nor an id.
    """
    folder = Path(existing(model))
    for name, key in (("config.json", "duet"), ("duet.json", None)):
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return (config if key is None else config.get(key)) is not None if isinstance(config, dict) else None
    return None


def reading(model: str, load: Callable[[], Any]) -> Any:
    """What `load` reads of a model; where that cannot be read, one sentence says so. Anything else is a bug."""
    try:
        return load()
    except DuetError:
        raise
    except Exception as error:
        if not _unreadable(error):
            raise
        told = reason(error)
        offline = "connect" in told.lower() or "offline" in told.lower()
        raise DuetError(
            f"model {short(model, 80)!r} cannot be read ({told}): give a folder written by save_pretrained with its "
            "processor, or the id of a model on the hub" + (NO_HUB if offline else ".")
        ) from error


def _unreadable(error: Exception) -> bool:
    """Whether an error of the loaders tells of files that are missing, damaged or not for this installation."""
    from safetensors import SafetensorError

    if isinstance(error, (OSError, ValueError, ImportError, EOFError, UnpicklingError, SafetensorError)):
        return True
    if type(error).__module__ == "huggingface_hub.errors":  # also of values in a config that are of the wrong type
        return True
    if isinstance(error, RuntimeError):  # torch's, where weights are cut off or have other shapes than the config says
        return re.search("PytorchStreamReader|mismatch", str(error)) is not None
    return type(error) is Exception  # the tokenizers' Rust side has no other
