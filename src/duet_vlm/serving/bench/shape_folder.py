"""A published shape as a folder that vLLM reads: its config, a processor and a tokenizer, and no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...inputs.shapes import shape_of
from ...measuring.settings import shortened

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

QUESTION = "What number is on the green circle?"
_ENDS = ("pad", "bos", "eos", "unk")
_HALF = [0.5, 0.5, 0.5]
# vLLM normalises on the device, by what the files say and no default
_NORM = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": _HALF, "image_std": _HALF}


@dataclass(frozen=True)
class Kind:
    """What a type of model is called in its files.

    Attributes:
        architecture: the class of its model.
        processor: the class of its processor.
        tokens: attributes of its config that hold a token's id, and that token.
    """

    architecture: str
    processor: str
    tokens: dict[str, str]


_QWEN = {
    "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}  # fmt: skip
KINDS = {
    "llava": Kind("LlavaForConditionalGeneration", "LlavaProcessor", {"image_token_id": "<image>"}),
    "qwen2_5_vl": Kind("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor", _QWEN),
    "qwen3_vl": Kind("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor", _QWEN),
}


def write_shape(folder: Path, config: PreTrainedConfig, shape: str, layers: int | None) -> None:
    """Write the folder.

    Args:
        folder: which is there.
        config: the shape's.
        shape: as `--shape` names it.
        layers: fewer decoder layers.
    """
    kind = KINDS[config.model_type]
    short = shortened(config, layers)
    short.architectures = [kind.architecture]
    short.save_pretrained(folder)
    named = _write_tokenizer(folder, config, kind)
    processor = shape_of(shape).processor
    files = {"tokenizer": {"tokenizer_class": "PreTrainedTokenizerFast", **named, "processor_class": kind.processor}}
    files |= _llava(config, processor) if config.model_type == "llava" else _qwen(processor)
    files["processor"] |= {"processor_class": kind.processor}
    for name, content in files.items():
        (folder / f"{name}_config.json").write_text(json.dumps(content), encoding="utf-8")


def _write_tokenizer(folder: Path, config: PreTrainedConfig, kind: Kind) -> dict[str, str]:
    """A word for each of the model's tokens; returns the names of the special ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ends = [f"<{name}>" for name in _ENDS]
    marks = {getattr(config, name): token for name, token in kind.tokens.items()}
    words = dict(enumerate([*ends, *QUESTION.replace("?", " ?").split()])) | marks
    count = config.get_text_config().vocab_size
    tokenizer = Tokenizer(models.WordLevel({words.get(i, f"word{i}"): i for i in range(count)}, unk_token=ends[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*ends, *marks.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    return {f"{name}_token": end for name, end in zip(_ENDS, ends, strict=True)}


def _llava(config: PreTrainedConfig, processor: dict[str, Any]) -> dict[str, dict[str, Any]]:
    vision = config.vision_config
    side = vision.image_size
    return {
        "preprocessor": {
            "do_resize": True, "do_center_crop": True, "do_convert_rgb": True, "resample": 3, **_NORM,
            "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, **processor,
        },
        "processor": {
            "patch_size": vision.patch_size, "image_token": "<image>", "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    }  # fmt: skip


def _qwen(processor: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sizes = {name: value for name, value in processor.items() if name != "image_processor_type"}
    both = _NORM | sizes | {"temporal_patch_size": 2}
    return {"preprocessor": both | processor, "video_preprocessor": both, "processor": {}}
