"""Models for the command line: by hub id or folder, or with random weights at a published shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ..errors import DuetError, reason, short
from ..families import family_of

DEMO = "demo"  # the demonstration model's name in every command
DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "weights"
NO_HUB = " or in its cache; where there is no connection, HF_HUB_OFFLINE=1 in the environment spares the attempts."
DTYPES = ("auto", "float32", "bfloat16", "float16")

_CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip
# name -> (vision tower, decoder); LLaVA-1.5 as in arXiv 2310.03744 and its converted checkpoints
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava-1.5-7b": (
        _CLIP_L_336,
        dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064),
    ),
    "llava-1.5-13b": (
        _CLIP_L_336,
        dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, vocab_size=32064),
    ),
    "tiny": (
        dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=48,
            patch_size=4,
            projection_dim=16,
        ),
        dict(hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4, vocab_size=1000),
    ),
}


def shape_config(name: str) -> Any:
    """The transformers config of a published shape.

    Raises:
        ValueError: a name that is not in `SHAPES`.
    """
    if name not in SHAPES:
        raise DuetError(f"shape {name!r} is unknown: choose one of {', '.join(SHAPES)}.")
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision, text = SHAPES[name]
    tower = CLIPVisionConfig(**vision, hidden_act="quick_gelu")
    decoder = LlamaConfig(**text, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_index=text["vocab_size"] - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
    )


def random_model(config: Any, dtype: str, device: str) -> Any:
    """A model of this config with weights drawn from N(0, 0.02), norms 1 and biases 0; seconds, whatever its size."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    kind = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    with no_init_weights(), torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=kind)
    # drawing billions of numbers takes minutes, copying two million of them does not; the odd size keeps rows different
    generator = torch.Generator().manual_seed(0)
    pool = torch.empty((1 << 21) + 1237).normal_(0, 0.02, generator=generator).to(device, kind)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.ndim > 1 or "class_embedding" in name:
                drawn = pool.roll(7919 * i)
                for part in parameter.view(-1).split(len(drawn)):
                    part.copy_(drawn[: len(part)])
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval()


def read_config(model: str) -> Any:
    """The config of a model on disk or on the hub, without its weights.

    A folder of LoRA adapters, as `duet train` writes it, is the model that they belong to, with the settings of their
    duet.json as its `duet`.

    Raises:
        ValueError: it cannot be read, or duet-vlm does not support its type.
    """
    from transformers import AutoConfig

    source = _existing(model)
    base = adapted(source)
    if base is not None:
        config, settings = read_config(base), Path(source) / "duet.json"
        if settings.is_file():
            config.duet = _read(model, lambda: json.loads(settings.read_text(encoding="utf-8")))
        return config
    config = _read(model, lambda: AutoConfig.from_pretrained(source))
    family_of(config)
    return config


def adapted(source: str) -> str | None:
    """The model that a folder of LoRA adapters belongs to; None where it is no such folder.

    Raises:
        ValueError: the folder does not say.
    """
    file = Path(source) / "adapter_config.json"
    if not file.is_file() or (Path(source) / "config.json").is_file():
        return None
    base = _read(source, lambda: json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path"))
    if not base:
        raise DuetError(f"adapter {source!r} does not name its base model: merge it and give the resulting folder.")
    return str(base)


def read_model(model: str, dtype: str, device: str) -> tuple[Any, Any]:
    """A model in eval mode and its processor.

    Raises:
        ValueError: weights or processor cannot be read.
    """
    processor = read_processor(model)
    return read_weights(model, dtype, device), processor


def read_processor(model: str) -> Any:
    """A model's stock processor; see `read_model`."""
    from .video.stock import stock_processor

    source = _existing(model)
    base = adapted(source)
    if base is not None and not any(Path(source).glob("*processor_config.json")):
        return read_processor(base)
    config = read_config(model)
    return _read(model, lambda: stock_processor(source, config))


def read_weights(model: str, dtype: str, device: str) -> Any:
    """A model in eval mode alone; see `read_model`. Adapters are in its layers."""
    from transformers import AutoModelForImageTextToText

    source = _existing(model)
    base = adapted(source)
    if base is not None:
        network = read_weights(base, dtype, device)
        try:
            from peft import PeftModel
        except ImportError as error:
            raise DuetError(
                f"model {model!r} is a LoRA adapter, which needs peft: pip install 'duet-vlm[train]'."
            ) from error
        network = _read(model, lambda: PeftModel.from_pretrained(network, source)).get_base_model()
        return network.to(device).eval()
    # the demonstration model is saved in half precision to be small; it computes in full
    kind = "float32" if model == DEMO and dtype == "auto" else dtype
    network = _read(model, lambda: AutoModelForImageTextToText.from_pretrained(source, dtype=kind))
    return network.to(device).eval()


def check_device(device: str | None) -> str:
    """The device asked for, or the fastest one there is.

    Raises:
        ValueError: a device that this machine or torch does not have.
    """
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if device is None:
        return there[0]
    kind, _, number = str(device).partition(":")
    if kind not in there or (number and not (number.isdigit() and int(number) < max(1, torch.cuda.device_count()))):
        raise DuetError(f"device {device!r} is not available here: choose one of {', '.join(there)}.")
    return device


def check_dtype(dtype: str) -> str:
    """Raises ValueError for a dtype that is not in `DTYPES`."""
    if dtype not in DTYPES:
        raise DuetError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}.")
    return dtype


def _existing(model: str) -> str:
    if model == DEMO:
        if not (DEMO_FOLDER / "config.json").is_file():
            raise DuetError("this installation has no demonstration model: give --model, a folder or a hub id.")
        return str(DEMO_FOLDER)
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
            f"save_pretrained, such an id, or {DEMO} for the demonstration model."
        )
    return model


def _read(model: str, load: Callable[[], Any]) -> Any:
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
