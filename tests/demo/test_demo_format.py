"""The demonstration model's format: packed questions equal single turns, hints point at what is meant."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import duet_vlm
from duet_vlm.demo.evaluate import VALIDATION_SEED, demo_prompt, scene_at
from duet_vlm.demo.model import VISUAL_TOKENS, config
from duet_vlm.demo.questions import SKILLS
from duet_vlm.demo.vocabulary import ASSISTANT, IDS, IMAGE, WORDS, encode_question, processor, tokenizer, unknown_words
from duet_vlm.stage1 import Merge
from recipes.demo import attention
from recipes.demo.batches import PREFIX, Rows, causal_mask, make_batch
from recipes.demo.compressed import CompressedForward, on_retained, stand_ins


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
    direct = loaded(images=scene.image, text=demo_prompt(asked[0].text), return_tensors="pt")
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
        packing = attention.Packing(causal_mask(prefix).float(), batch.visible.float())
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


@pytest.mark.parametrize("keep", [0.33, 0.11])
def test_a_packed_question_is_compressed_as_a_single_turn_is(keep: float) -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config()).eval()
    compression = duet_vlm.DuetConfig.preset("duet", model=model, keep=keep)
    batch = make_batch(np.random.default_rng(3), 1, VISUAL_TOKENS)
    ask_at = int(batch.answers.q[0])
    question = batch.ids[:, : ask_at + 1]
    alone = torch.tensor([[*PREFIX, *[IDS[IMAGE]] * VISUAL_TOKENS]])
    with torch.no_grad(), duet_vlm.apply(model, compression, tokenizer=processor()) as handle:
        single = model.model(input_ids=torch.cat([alone, question], 1), pixel_values=batch.pixels).last_hidden_state
        expected = handle.trace
    # only this question asks: the others would rank too
    first = Rows(batch.answers.b[:1], batch.answers.q[:1], batch.answers.goal[:1])
    attention.register()
    model.set_attn_implementation(attention.NAME)
    packing = attention.Packing(causal_mask(2 + VISUAL_TOKENS).float(), batch.visible.float(), frozenset({5, 6, 9}))
    run = CompressedForward(model, processor())
    with torch.no_grad():
        states = run(replace(batch, answers=first, skill=batch.skill[:1]), compression, packing).states
    torch.testing.assert_close(states[0, ask_at], single[0, -1])
    assert expected is not None
    widths = [packing.weights[i].shape[-1] - batch.ids.shape[1] - len(PREFIX) for i in (5, 6, 9)]
    assert widths == [expected.samples[0].tokens_per_layer[i] for i in (5, 6, 9)]
    assert not hasattr(model.config, "duet")


def test_a_discarded_patch_is_stood_for_by_its_object_or_its_cluster() -> None:
    dominant, anchors = torch.tensor([[2, 5]]), torch.tensor([[7]])
    members, joins = torch.tensor([[6, 8]]), torch.tensor([[0, 0]])
    merge = Merge(torch.zeros(1, 10), dominant, anchors, members, joins)
    owner = torch.tensor([[0, -1, 0, -1, 1, 1, 2, -1, -1, 3]])
    # tokens after CLS: patches 2, 5, 7; patch 6 is alone of object 2 and merged into 7; nothing is left of object 3
    assert stand_ins(merge, owner).tolist() == [[1, -1, 1, -1, 2, 2, 3, 3, 3, -1]]


def test_hints_speak_of_what_stage_1_retained() -> None:
    batch = make_batch(np.random.default_rng(5), 3, VISUAL_TOKENS)
    order = torch.rand(3, VISUAL_TOKENS, generator=torch.Generator().manual_seed(0)).argsort(1)
    scores, nobody = torch.zeros(3, VISUAL_TOKENS), order[:, :0]
    merge = Merge(scores, order[:, :40].sort(1).values, order[:, 40:44], nobody, nobody)
    mapped = on_retained(batch, merge)
    assert 0 < len(mapped.mentions) <= len(batch.mentions) and 0 < len(mapped.tally) < len(batch.tally)
    token_owner = batch.owner.gather(1, merge.places)
    mentions = batch.mentions
    known = {(int(b), int(q)): g for b, q, g in zip(mentions.b, mentions.q, mentions.goal, strict=True)}
    for b, q, goal in zip(mapped.mentions.b, mapped.mentions.q, mapped.mentions.goal, strict=True):
        assert goal.shape == (45,) and goal.any() and not goal[0]
        objects = set(batch.owner[b][known[int(b), int(q)]].tolist())
        assert set(token_owner[b][goal[1:]].tolist()) <= objects
    torch.testing.assert_close(mapped.tally.goal.sum(1), torch.ones(len(mapped.tally)))
    background = int((batch.skill == SKILLS.index("background")).sum())
    assert int(mapped.sources.goal[:, 0].sum()) == background > 0  # CLS knows it
