"""Tiny random models that take videos, in folders, with tokenizers and settings as the published ones are saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zoo
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from zoo_glm import VIDEO_END, VIDEO_START

WORDS = [
    "what", "happens", "in", "the", "video", "here", "?", "who", "is", "on", "left", "of", "red", "square", "and",
    "where", "does", "it", "go", "user", "assistant", ":", ".", ",", "!",
]  # fmt: skip
IMAGE, VIDEO, START, END = 98, 97, 96, 95  # as in the zoo
TEMPLATE = (
    "{% for message in messages %}user : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant :{% endif %}"
)
SQUARE = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def _qwen(processor: str, bounds: tuple[int, int]) -> dict[str, Any]:
    size = {"shortest_edge": bounds[0], "longest_edge": bounds[1]}
    settings = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    return {
        "tokens": {
            IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>", START: "<|vision_start|>", END: "<|vision_end|>"
        },
        "shown": ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
        "image": {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 1024, "max_pixels": 4096, **settings},
        "video": {"size": size, **settings},
        "processor": {"processor_class": processor},
    }  # fmt: skip


def _glm(image: str, processor: str) -> dict[str, Any]:
    settings = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    return {
        "tokens": {
            IMAGE: "<|image|>", VIDEO: "<|video|>", START: "<|begin_of_image|>", END: "<|end_of_image|>",
            VIDEO_START: "<|begin_of_video|>", VIDEO_END: "<|end_of_video|>",
        },
        "shown": ("<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>"),
        "image": {"image_processor_type": image, "size": {"shortest_edge": 2048, "longest_edge": 8192}, **settings},
        "video": {"size": {"shortest_edge": 4096, "longest_edge": 16384}, **settings},
        "processor": {"processor_class": processor},
    }  # fmt: skip


def _llava(side: int) -> dict[str, Any]:
    return {
        "tokens": {IMAGE: "<image>", VIDEO: "<video>"},
        "shown": ("<image>\n", "<video>\n"),
        "image": {"image_processor_type": "VideoLlavaImageProcessor", "size": {"shortest_edge": side}, **SQUARE,
                  "crop_size": {"height": side, "width": side}},
        "video": {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, **SQUARE},
        "processor": {"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    }  # fmt: skip


FAMILIES: dict[str, dict[str, Any]] = {
    "video_llava": _llava(24),
    "qwen2_vl": _qwen("Qwen2VLProcessor", (1024, 4096)),
    "qwen2_5_vl": _qwen("Qwen2_5_VLProcessor", (1024, 4096)),
    "qwen3_vl": _qwen("Qwen3VLProcessor", (4096, 16384)),
    "glm4v": _glm("Glm4vImageProcessor", "Glm4vProcessor"),
    "glm4v_moe": _glm("Glm4vImageProcessor", "Glm4vProcessor"),
    "glm46v": _glm("Glm46VImageProcessor", "Glm46VProcessor"),
    "glm_ocr": _glm("Glm46VImageProcessor", "Glm46VProcessor"),
    "llava_onevision": {
        "tokens": {IMAGE: "<image>", VIDEO: "<video>"},
        "shown": ("<image>\n", "<video>\n"),
        "image": {"image_processor_type": "LlavaOnevisionImageProcessor", "size": {"height": 24, "width": 24},
                  "image_grid_pinpoints": [[24, 24], [24, 48], [48, 24], [48, 48]]},
        "video": {"size": {"height": 24, "width": 24}, "num_frames": 6, **SQUARE},
        "processor": {"num_image_tokens": 36, "vision_feature_select_strategy": "full",
                      "vision_aspect_ratio": "anyres_max_2"},
    },
    "internvl": {
        "tokens": {IMAGE: "<IMG_CONTEXT>", VIDEO: "<video>", START: "<img>", END: "</img>"},
        "names": {"context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>",
                  "video_token": "<video>"},
        "shown": ("<IMG_CONTEXT>\n", "<video>\n"),
        "image": {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 32, "width": 32}, **SQUARE},
        "video": {"size": {"height": 32, "width": 32}, **SQUARE},
        "processor": {"image_seq_length": 16},
    },
    "smolvlm": {
        "tokens": {IMAGE: "<image>", VIDEO: "<video>", START: "<fake_token_around_image>", END: "<global-img>"},
        "shown": ("<image>", "<video>"),
        "image": {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 64},
                  "max_image_size": {"longest_edge": 32}},
        "video": {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32},
                  "video_sampling": {"fps": 4, "max_frames": 8, "video_size": {"longest_edge": 64}}},
        "processor": {"image_seq_len": 16},
    },
    "gemma3": {
        "tokens": {IMAGE: "<image_soft_token>", START: "<start_of_image>", END: "<end_of_image>"},
        "names": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        "shown": ("<start_of_image>", ""),
        "image": {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 32, "width": 32}, **SQUARE},
        "video": {},
        "processor": {"image_seq_length": 16},
    },
    "gemma4": {
        "tokens": {IMAGE: "<|image|>", VIDEO: "<|video|>", START: "<|image>", END: "<image|>", 93: "<|audio|>",
                   92: "<|audio>", 91: "<audio|>"},
        "names": {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
                  "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"},
        "shown": ("<|image|>", "<|video|>"),
        "image": {"image_processor_type": "Gemma4ImageProcessor", "patch_size": 4, "max_soft_tokens": 70,
                  "feature_extractor_type": "Gemma4AudioFeatureExtractor"},
        "video": {"patch_size": 4},
        "processor": {},
    },
}  # fmt: skip


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A word a token; the placeholders have the ids that the zoo's configs name."""
    named = {0: "<pad>", 1: "<s>", 2: "</s>", 3: "<unk>", **FAMILIES[family]["tokens"]}
    named |= {i: word for i, word in enumerate(WORDS, start=4)}
    words = {named.get(i, f"<spare{i}>"): i for i in range(99)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(["<pad>", "<s>", "</s>", "<unk>", *FAMILIES[family]["tokens"].values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens=FAMILIES[family].get("names", [*FAMILIES[family]["tokens"].values()]),
    )  # fmt: skip


def save(folder: Path, family: str, template: bool = True) -> Path:
    """A folder with weights and the files of a processor, as they are on the hub."""
    model = zoo.build(family)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    made = FAMILIES[family]
    tokenizer(family).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(made["image"]))
    (folder / "processor_config.json").write_text(json.dumps(made["processor"]))
    if made["video"]:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(made["video"]))
    if template:
        image, video = made["shown"]
        text = TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    return folder
