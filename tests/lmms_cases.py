"""What the tests of the lmms-eval plug-in share: runs, a tiny Qwen2.5-VL in a folder, pictures and videos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from duet_vlm.lmms_eval import TASKS


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """lmms-eval keeps what it reads here, and asks no hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def run(task: str, batch_size: int = 1, limit: int | None = None, **arguments: Any) -> dict[str, Any]:
    """What lmms-eval returns for `--model duet_hf`."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, model_name="duet_hf")
    given = ",".join(f"{name}={value}" for name, value in arguments.items())
    found: dict[str, Any] = simple_evaluate(
        "duet_hf", given, tasks=[task], task_manager=manager, limit=limit, batch_size=batch_size, log_samples=True,
        bootstrap_iters=10,
    )  # fmt: skip
    return found


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Coloured squares."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def qwen(folder: Path) -> Path:
    """A tiny Qwen2.5-VL with a processor."""
    marks = ["<pad>", "<unk>", "<eos>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = [*marks, "what", "is", "this", "?", "red", "blue", "yes", "no", "answer", "the", "question"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(marks)
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=dict(
                depth=2, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=14, window_size=56,
                fullatt_block_indexes=[1], out_hidden_size=32,
            ),
            text_config=dict(
                vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4,
                num_key_value_heads=2, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]},
                pad_token_id=0, bos_token_id=None, eos_token_id=2,
            ),
            image_token_id=5, video_token_id=6, vision_start_token_id=3, vision_end_token_id=4,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    kind = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    sizes = dict(min_pixels=56 * 56, max_pixels=112 * 112, patch_size=14, temporal_patch_size=2, merge_size=2)
    (folder / "preprocessor_config.json").write_text(json.dumps(kind | sizes))
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video | sizes))
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'text' %} {{ c['text'] }}"
        "{% else %}<|vision_start|><|{{ c['type'] }}_pad|><|vision_end|>{% endif %}{% endfor %}{% endfor %} answer"
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


def clip(file: Path, frames: int = 12, seed: int = 0) -> Path:
    """A video that PyAV wrote."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'duet-vlm[video]'")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_image(picture(64, 64, seed + i))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file
