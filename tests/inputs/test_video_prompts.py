"""Prompts with a video: as many placeholders as visual tokens, times in words, processors saved and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import saved_video
from moving import video
from transformers import AutoConfig
from transformers.image_utils import (
    OPENAI_CLIP_MEAN,
)

from duet_vlm.inputs.video.decoding import Clip
from duet_vlm.inputs.video.inputs import content, video_inputs
from duet_vlm.inputs.video.stock import stock_processor


def clip_of(frames: int = 4) -> Clip:
    indices = [5 * i for i in range(frames)]
    return Clip(video(frames, 40, 64), indices, [i / 10 for i in indices], 5 * frames, 10.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processors")
    for family in saved_video.FAMILIES:
        saved_video.save(folder / family, family)
    return folder


def prepared(folder: Path, family: str, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[str]]:
    """The processor, its inputs of a prompt with a clip, and the prompt's tokens."""
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # a package that its processor needs for one word
    config = AutoConfig.from_pretrained(folder / family)
    processor = stock_processor(str(folder / family), config)
    said = [*content(config, clip), {"type": "text", "text": "what happens ?"}]
    text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
    inputs = video_inputs(config, processor, clip, text)
    return processor, inputs, processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())


@pytest.mark.parametrize(
    ("family", "placeholder", "count"),
    [
        ("video_llava", "<video>", 4 * 37),
        ("qwen2_vl", "<|video_pad|>", 2 * 5 * 8),
        ("qwen2_5_vl", "<|video_pad|>", 2 * 5 * 8),
        ("qwen3_vl", "<|video_pad|>", 2 * 5 * 8),
        *((name, "<|image|>", 2 * 5 * 8) for name in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")),
        ("llava_onevision", "<video>", 4 * 9 + 1),
        ("internvl", "<IMG_CONTEXT>", 4 * 16),
        ("smolvlm", "<image>", 4 * 16),
        ("gemma3", "<image_soft_token>", 4 * 16),
        ("gemma4", "<|video|>", 4 * 6 * 10),
    ],
)
# GLM's processor makes arrays of tensors as numpy 1 did
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_placeholders(
    folders: Path, family: str, placeholder: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, inputs, tokens = prepared(folders, family, clip_of(), monkeypatch)
    assert tokens.count(placeholder) == count
    behind = tokens[len(tokens) - tokens[::-1].index(placeholder) :]
    assert behind[-5:] == ["what", "happens", "?", "assistant", ":"] or family == "smolvlm"  # its own template
    assert "what" in behind and "happens" in behind
    if family == "qwen2_5_vl":  # two frames of every 0.5 s
        assert inputs["second_per_grid_ts"].tolist() == [1.0]
    if family == "internvl":
        assert inputs["pixel_values"].shape == (4, 3, 32, 32)
    if family.startswith(("qwen", "glm")):
        assert inputs["video_grid_thw"].tolist() == [[2, 10, 16]]
        assert (inputs["mm_token_type_ids"] == 2).sum() == count


def test_qwen3_writes_times(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    processor, _, _ = prepared(folders, "qwen3_vl", clip_of(5), monkeypatch)
    tokenize = type(processor.tokenizer).__call__

    def noting(self: Any, text: Any, **kwargs: Any) -> Any:
        said.extend(text)
        return tokenize(self, text, **kwargs)

    monkeypatch.setattr(type(processor.tokenizer), "__call__", noting)
    video_inputs(AutoConfig.from_pretrained(folders / "qwen3_vl"), processor, clip_of(5), "<|video_pad|>")
    # middles of frames 1 and 2, 3 and 4, and of the last one, which is repeated
    assert [part.split(">")[0] for part in said[0].split("<") if "seconds" in part] == [
        "0.2 seconds", "1.2 seconds", "2.0 seconds"
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2_5_vl", "video_llava"])
def test_a_processor_that_was_saved_again(folders: Path, family: str, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(folders / family)
    processor = stock_processor(str(folders / family), config)
    processor.save_pretrained(tmp_path)
    again = stock_processor(str(tmp_path), config)
    assert vars(again.video_processor) == vars(processor.video_processor)
    assert type(again).__name__ == type(processor).__name__


def test_older_files_and_defaults(folders: Path, tmp_path: Path) -> None:
    # Qwen2-VL's first files had no settings for videos: those for images count
    for file in (folders / "qwen2_vl").iterdir():
        if file.name != "video_preprocessor_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    found = stock_processor(str(tmp_path), AutoConfig.from_pretrained(tmp_path)).video_processor
    assert found.size == {"shortest_edge": 1024, "longest_edge": 4096} and found.patch_size == 4
    assert found.image_mean == OPENAI_CLIP_MEAN
