"""Models for the command line: their config, processor and weights, by hub id or folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DuetError
from ..families import family_of
from .model_folders import DEMO, adapted, existing, reading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin


def read_config(model: str) -> PreTrainedConfig:
    """The config of a model on disk or on the hub, without its weights.

    A folder of LoRA adapters, as `duet train` writes it, is the model that they belong to, with the settings of their
    duet.json as its `duet`.

    Raises:
        ValueError: it cannot be read, or duet-vlm does not support its type.
    """
    from transformers import AutoConfig

    source = existing(model)
    base = adapted(source)
    if base is not None:
        config, settings = read_config(base), Path(source) / "duet.json"
        if settings.is_file():
            config.duet = reading(model, lambda: json.loads(settings.read_text(encoding="utf-8")))
        return config
    read: PreTrainedConfig = reading(model, lambda: AutoConfig.from_pretrained(source))
    family_of(read)
    return read


def read_model(model: str, dtype: str, device: str) -> tuple[Any, Any]:
    """A model in eval mode and its processor.

    Raises:
        ValueError: weights or processor cannot be read.
    """
    processor = read_processor(model)
    return read_weights(model, dtype, device), processor


def read_processor(model: str) -> ProcessorMixin:
    """A model's stock processor; see `read_model`."""
    from .video.stock import stock_processor

    source = existing(model)
    base = adapted(source)
    if base is not None and not any(Path(source).glob("*processor_config.json")):
        return read_processor(base)
    config = read_config(model)
    processor: ProcessorMixin = reading(model, lambda: stock_processor(source, config))
    return processor


def read_weights(model: str, dtype: str, device: str) -> Any:
    """A model in eval mode alone; see `read_model`. Adapters are in its layers."""
    from transformers import AutoModelForImageTextToText

    source = existing(model)
    base = adapted(source)
    if base is not None:
        network = read_weights(base, dtype, device)
        try:
            from peft import PeftModel
        except ImportError as error:
            raise DuetError(
                f"model {model!r} is a LoRA adapter, which needs peft: pip install 'duet-vlm[train]'."
            ) from error
        network = reading(model, lambda: PeftModel.from_pretrained(network, source)).get_base_model()
        return network.to(device).eval()
    # the demonstration model is saved in half precision to be small; it computes in full
    kind = "float32" if model == DEMO and dtype == "auto" else dtype
    network = reading(model, lambda: AutoModelForImageTextToText.from_pretrained(source, dtype=kind))
    return network.to(device).eval()
