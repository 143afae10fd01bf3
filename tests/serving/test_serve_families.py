"""Every family is served, with pictures of several sizes in one question; answers are those of `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import saved_video
from pictures import noise
from PIL import Image

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.inputs.checkpoints import read_model
from duet_vlm.serving.answering import Answerer
from duet_vlm.serving.limits import Limits
from duet_vlm.serving.requests import ChatRequest

QUESTION, TOKENS = "who is on the left of the red square ?", 8


def pictures() -> list[Image.Image]:
    """None so long that Gemma 4's processor makes more rows of it than the zoo's model has positions."""
    return [noise(40, 30), noise(30, 45, seed=1)]


@pytest.mark.parametrize("family", saved_video.FAMILIES)
@pytest.mark.usefixtures("number_words")
def test_two_pictures_and_a_question(tmp_path: Path, family: str) -> None:
    folder = str(saved_video.save(tmp_path, family))
    model, processor = read_model(folder, "float32", "cpu")
    # random weights may end at once or say special tokens alone, and then nothing would be compared
    model.generation_config.suppress_tokens = processor.tokenizer.all_special_ids
    shown = saved_video.FAMILIES[family]["shown"][0]
    seen = pictures()
    text = f"user : {shown}{shown} {QUESTION} assistant :"
    inputs = processor(images=[seen], text=[text], return_tensors="pt")
    settings = DuetConfig.preset("duet", model=model, keep=0.5)
    with duet_vlm.apply(model, settings, tokenizer=processor) as handle:
        out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        expected = processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        trace = handle.trace
        assert trace is not None
        counts, visual = trace.samples[0].tokens_per_layer, len(trace.samples[0].visual)
        content: list[dict[str, Any]] = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
        asked = ChatRequest([{"role": "user", "content": content}], [], max_tokens=TOKENS, temperature=0)
        pieces = list[str]()
        answer = Answerer(handle, processor, Limits()).answer(asked, seen, pieces.append, lambda: False)
    assert answer.text == "".join(pieces) == expected != ""
    assert (answer.prompt_tokens, answer.new_tokens) == (
        inputs["input_ids"].shape[1],
        TOKENS,
    )
    assert answer.visual_tokens == visual and answer.visual_kept == sum(counts) / len(counts) < visual
