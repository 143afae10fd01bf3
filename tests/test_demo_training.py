"""The demonstration model's format and training: packed questions equal single turns, resumed runs equal whole ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from duet_vlm.demo.evaluate import VALIDATION_SEED, prompt, scene_at
from duet_vlm.demo.model import VISUAL_TOKENS, config
from duet_vlm.demo.train import Recipe, train
from duet_vlm.demo.training import attention, loop
from duet_vlm.demo.training.batches import PREFIX, causal_mask, make_batch
from duet_vlm.demo.training.distributed import Workers
from duet_vlm.demo.vocabulary import ASSISTANT, IDS, IMAGE, WORDS, encode_question, processor, tokenizer, unknown_words

TINY = Recipe(
    vision_steps=1, vision_scenes=2, again_steps=1, again_scenes=2, warmup_steps=1, warmup_scenes=2, few_steps=1,
    few_scenes=2, full_steps=2, full_scenes=2, save_every=1,
)  # fmt: skip


def test_every_word_survives_the_tokenizer() -> None:
    tokens = tokenizer()
    assert len(tokens) == len(WORDS) == len(set(WORDS))
    for scene in range(20):
        for question in scene_at(VALIDATION_SEED, scene)[1]:
            typed = re.sub(r" ([?.,])", r"\1", question.text).capitalize()
            assert tokens(typed).input_ids == [IDS["<s>"], *encode_question(question.text)]
            assert tokens.decode(tokens(typed).input_ids, skip_special_tokens=True) == question.text
            assert unknown_words(typed) == []
    assert tokens("What zebra?").input_ids[2] == IDS["<unk>"]
    assert unknown_words("What colour is the zebra, zebra or emu?") == ["zebra", "or", "emu"]


def test_offsets_point_at_the_words() -> None:
    text = "USER: <image>\nWhat color is the top-left star? ASSISTANT:"
    encoded = tokenizer()(text, return_offsets_mapping=True)
    words = [text[a:b].lower() for a, b in encoded["offset_mapping"][1:]]
    assert words == ["user:", "<image>", "what", "color", "is", "the", "top-left", "star", "?", "assistant:"]


def test_the_chat_template_writes_the_training_format(tmp_path: Path) -> None:
    processor().save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    scene, asked = scene_at(VALIDATION_SEED, 0)
    expected = [*PREFIX, *[IDS[IMAGE]] * VISUAL_TOKENS, *encode_question(asked[0].text), IDS[ASSISTANT]]
    content = [{"type": "image", "image": Image.fromarray(scene.image)}, {"type": "text", "text": asked[0].text}]
    turn = [{"role": "user", "content": content}]
    ids = loaded.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    assert list(ids[0]) == expected
    direct = loaded(images=scene.image, text=prompt(asked[0].text), return_tensors="pt")
    assert direct["input_ids"][0].tolist() == expected
    answer = {"role": "assistant", "content": [{"type": "text", "text": asked[0].answer}]}
    whole = loaded.apply_chat_template([*turn, answer], tokenize=True, return_dict=True)["input_ids"]
    assert list(whole[0]) == [*expected, IDS[asked[0].answer], IDS["</s>"]]


def test_a_packed_question_equals_a_single_turn() -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config()).eval()
    batch = make_batch(np.random.default_rng(3), 1, VISUAL_TOKENS)
    core, prefix = model.model, 2 + VISUAL_TOKENS
    with torch.no_grad():
        image = core.get_image_features(batch.pixels).pooler_output[0]
        embed = core.language_model.embed_tokens
        start = torch.cat([embed(torch.tensor(PREFIX)), image])
        single = []
        ends = batch.answers.q.tolist()
        for first, end in zip([0, *(e + 2 for e in ends[:-1])], ends, strict=True):
            inputs = torch.cat([start, embed(batch.ids[0, first : end + 1])])[None]
            single.append(core.language_model(inputs_embeds=inputs).last_hidden_state[0, -1])
        attention.register()
        core.language_model.set_attn_implementation(attention.NAME)
        packing = attention.Packing(prefix, causal_mask(prefix).float(), batch.visible.float())
        position = torch.cat([torch.arange(prefix)[None], prefix + batch.position], 1)
        inputs = torch.cat([start, embed(batch.ids[0])])[None]
        packed = core.language_model(inputs_embeds=inputs, position_ids=position, use_cache=False, packing=packing)
    assert len(ends) >= 10
    torch.testing.assert_close(packed.last_hidden_state[0, prefix:][batch.answers.q], torch.stack(single))


def test_hints_point_at_what_the_questions_mean() -> None:
    batch = make_batch(np.random.default_rng(4), 4, 32)
    patch_color = batch.targets.color.gather(1, batch.kept)
    checked = 0
    for b, q, goal in zip(batch.words.b, batch.words.q, batch.words.goal, strict=True):
        word = WORDS[int(batch.ids[b, q])]
        if word in WORDS[7:15]:
            assert (patch_color[b][goal] == WORDS.index(word) - 6).all()
            checked += 1
        assert goal.any()
    assert checked > 10
    for b, q, goal in zip(batch.roles[0].b, batch.roles[0].q, batch.roles[0].goal, strict=True):
        assert WORDS[int(batch.ids[b, q])] == ASSISTANT
        assert goal.sum() == 1
    counted = {round(1 / float(goal[0])) - 1 for goal in batch.tally.goal}
    assert counted <= set(range(5)) and len(counted) > 2
    torch.testing.assert_close(batch.tally.goal.sum(1), torch.ones(len(batch.tally)))


def test_the_loop_resumes_exactly(tmp_path: Path) -> None:
    def run(folder: Path, fail_at: int | None, resume: bool) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        stage = loop.Stage("toy", 9, 6, (0.1,), warmup=2, save_every=2)

        def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == fail_at:
                raise KeyboardInterrupt
            x = torch.from_numpy(loop.generator(stage, step, Workers()).random((8, 4), np.float32))
            return (layer(x) - x.flip(1)).pow(2).mean(), {}

        modules = torch.nn.ModuleDict({"layer": layer})
        loop.train(stage, modules, [list(modules.parameters())], losses, folder, Workers(), resume, lambda *_: None)
        return dict(layer.state_dict())

    whole = run(tmp_path / "whole", None, False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 5, False)
    resumed = run(tmp_path / "cut", None, True)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_an_interrupted_training_ends_like_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", TINY, processes=1, compiled=False)
    from duet_vlm.demo.training import language

    calls, real = [0], language.make_batch

    def failing(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:  # one step each of warm-up, few and full has been taken
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(language, "make_batch", failing)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", TINY, processes=1, compiled=False)
    train(tmp_path / "cut", TINY, processes=1, resume=True, compiled=False)
    whole, cut = (LlavaForConditionalGeneration.from_pretrained(tmp_path / n).state_dict() for n in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    assert (tmp_path / "whole" / "model.safetensors").stat().st_size < 20 * 2**20
