"""The model duet_hf of the lmms-eval plug-in: conversations, batches, generation settings, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install 'duet-vlm[lmms-eval]'")

import saved
import saved_video
from lmms_cases import caches, clip, picture

from duet_vlm import DuetConfig
from duet_vlm.demo.model import folder as demo_folder
from duet_vlm.inputs.prompts import conversation
from duet_vlm.lmms_eval.generation import DEFAULT_NEW_TOKENS, cut, generation_settings
from duet_vlm.lmms_eval.model import DuetHF

__all__ = ["caches"]
pytestmark = pytest.mark.usefixtures("caches")

CALL: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "until": ["\n\n"]}


# ---- conversations: several images, none, videos, batches ----


def user(*parts: Any) -> list[dict[str, Any]]:
    """One turn of pictures (PIL), videos (paths) and text."""
    content = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append({"type": "video" if isinstance(part, Path) else "image", "url": part})
    return [{"role": "user", "content": content}]


def check_batch(model: DuetHF, turns: list[list[dict[str, Any]]]) -> list[Any]:
    """A batch answers as its rows one by one, at the same cost; its measures."""
    conversations = [model.reader.read(turn) for turn in turns]
    together, measures, _ = model.answer(conversations, CALL)
    for turn, answer, measured in zip(conversations, together, measures, strict=True):
        (single,), (one,), _ = model.answer([turn], CALL)
        assert answer == single != ""
        assert {**measured.to_dict(), "prefill_ms": 0} == {**one.to_dict(), "prefill_ms": 0}
    return measures


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_several_images_one_and_none_in_a_batch(family: str, tmp_path: Path) -> None:
    model = DuetHF(str(saved.save(tmp_path, family)), keep=0.33, dtype="float32", device="cpu")
    wide, high = picture(224, 112, 1), picture(112, 224, 2)
    measures = check_batch(
        model, [user(wide, high, "which color does it have ?"), user(high, "find the ring ."), user("is there one ?")]
    )
    several, single, none = (m.tokens_in for m in measures)
    assert several > single > none == 0
    assert measures[2].kv_bytes > 0
    model.clean()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "video_llava"])
def test_images_and_videos_in_a_batch(family: str, tmp_path: Path) -> None:
    folder, settings = str(saved_video.save(tmp_path, family)), {"dtype": "float32", "device": "cpu", "max_frames": 4}
    model = DuetHF(folder, keep=0.4, query="last", **settings)
    film, long_film = clip(tmp_path / "film.mp4"), clip(tmp_path / "long.mp4", 30, seed=50)
    measures = check_batch(
        model,
        [user(film, "what happens in the video ?"), user(picture(64, 48, 1), picture(48, 48, 2), "where is red ?"),
         user(long_film, picture(48, 64, 3), "who is here ?"), user("what is here ?")],
    )  # fmt: skip
    assert all(m.tokens_in > m.tokens_last for m in measures[:3])
    assert measures[3].tokens_in == 0
    model.handle.remove()
    stock = DuetHF(folder, method="none", **settings)
    whole = check_batch(stock, [user(film, "what happens in the video ?")])[0]
    assert whole.tokens_in == whole.tokens_last > measures[0].tokens_in
    assert whole.kv_bytes > measures[0].kv_bytes


def test_a_model_writes_prompts_as_elsewhere(tmp_path: Path) -> None:
    for template in (True, False):
        processor = saved.processor("llava", template)
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "find the ring ."}]}]
        assert conversation(processor, messages) == "USER: <image>\nfind the ring . ASSISTANT:"


def test_a_system_prompt_stands_first(tmp_path: Path) -> None:
    model = DuetHF(str(saved.save(tmp_path, template=False)), method="none", device="cpu", system_prompt="look well .")
    messages = model._apply_system_prompt(user(picture(112, 112, 1), "find the ring ."), model.system_prompt)
    assert conversation(model.processor, model.reader.read(messages).messages).startswith("look well . USER: <image>\n")


# ---- settings ----


def test_generation_settings() -> None:
    greedy, until = generation_settings({"until": ["\n\n", ""], "temperature": 0.0, "do_sample": True, "top_p": 0.9})
    assert until == ["\n\n"]
    assert (greedy["do_sample"], greedy["top_p"], greedy["num_beams"]) == (False, None, 1)
    assert greedy["max_new_tokens"] == DEFAULT_NEW_TOKENS
    sampled, until = generation_settings({"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 7, "until": "."})
    assert until == ["."]
    assert sampled == {"max_new_tokens": 7, "num_beams": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    assert generation_settings({"do_sample": True})[0]["do_sample"] is True
    assert cut(" a ring\n\nQ: more", ["\n\n", "Q:"]) == "a ring"


def test_beams_and_sampling(tmp_path: Path) -> None:
    model = DuetHF(str(saved.save(tmp_path)), keep=0.33, device="cpu", dtype="float32")
    turns = [model.reader.read(user(picture(112, 112, i), "find the ring .")) for i in range(2)]
    greedy = model.answer(turns, CALL)[1]
    beams = model.answer(turns, CALL | {"num_beams": 3})[1]
    sampled = model.answer(turns, {"temperature": 1.0, "max_new_tokens": 3})[1]
    for measures in (beams, sampled):
        assert [(m.tokens_in, m.kv_bytes) for m in measures] == [(m.tokens_in, m.kv_bytes) for m in greedy]


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kep": 0.3}, "model argument 'kep' is unknown"),
        ({"keep": 0.3, "batch_size": "auto"}, "batch size 'auto' is not possible"),
        ({"method": "none", "keep": 0.3}, "method 'none' compresses nothing"),
        ({"method": "duett", "keep": 0.3}, "'duett' is unknown"),
        ({"method": "saved"}, "method 'saved' needs settings in the model's config.json"),
        ({"method": "saved", "keep": 0.3}, "method 'saved' brings its budget"),
        ({}, "there is no budget"),
        ({"method": "saved", "query": "last"}, "method 'saved' brings its fields: leave out query"),
        ({"keep": 0.3, "dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"keep": 0.3, "device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"keep": 0.3, "max_frames": 0}, "max_frames 0 shows the model nothing"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DuetHF(str(demo_folder()), **arguments)


def test_what_the_model_cannot_do_is_refused(tmp_path: Path) -> None:
    model = DuetHF(str(demo_folder()), keep=0.33, device="cpu")
    with pytest.raises(NotImplementedError, match="generate_until"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="generate_until"):
        model.generate_until_multi_round([])
    assert model.generate_until([]) == []
    for part, sentence in (
        ({"type": "audio", "url": "a.wav"}, "content of type 'audio'"),
        ({"type": "video", "url": str(clip(tmp_path / "film.mp4"))}, "take pictures only"),
        ({"type": "video", "url": "a.mp4", "end_time": 3.0}, "parts of videos"),
        ({"type": "image", "url": "nowhere.png"}, "does not exist"),
    ):
        with pytest.raises(ValueError, match=sentence):
            model.reader.read([{"role": "user", "content": [part]}])


@pytest.mark.parametrize("method", ["saved", None])
def test_settings_that_a_model_brings_stand(method: str | None, tmp_path: Path) -> None:
    folder = saved.save(tmp_path)
    config = DuetConfig.preset("duet", model=saved.config(), tokens=22)
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"duet": config.to_dict()}))
    assert DuetHF(str(folder), method=method, device="cpu").handle.config == config
    other = DuetHF(str(folder), keep=0.5, device="cpu").handle.config
    assert other == DuetConfig.preset("duet", model=saved.config(), keep=0.5)
