"""The demonstration model's format and training: packed questions equal single turns, resumed runs equal whole ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import duet_vlm
from duet_vlm.demo.evaluate import VALIDATION_SEED, demo_prompt, scene_at
from duet_vlm.demo.model import TEXT_WIDTH, VISION_WIDTH, VISUAL_TOKENS, config
from duet_vlm.demo.questions import SKILLS
from duet_vlm.demo.vocabulary import ASSISTANT, IDS, IMAGE, WORDS, encode_question, processor, tokenizer, unknown_words
from duet_vlm.stage1 import Merge
from recipes.demo import attention, loop
from recipes.demo.batches import PREFIX, Rows, causal_mask, make_batch
from recipes.demo.compressed import CompressedForward, coverage_loss, on_retained, stand_ins
from recipes.demo.distributed import Workers
from recipes.demo.language import LanguageHeads, LanguageStep
from recipes.demo.timing import measure, step_flops
from recipes.demo.training import Recipe, train
from recipes.demo.vision import VisionHeads

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


def test_the_trained_cls_attention_is_the_one_stage_1_ranks_by() -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config()).eval()
    compression = duet_vlm.DuetConfig.preset("duet", model=model, keep=0.22)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    batch = make_batch(np.random.default_rng(7), 2, VISUAL_TOKENS)
    packing = attention.Packing(causal_mask(2 + VISUAL_TOKENS).float(), batch.visible.float())
    run = CompressedForward(model, processor())
    with torch.no_grad(), duet_vlm.apply(model, compression, tokenizer=processor()) as handle:
        model.model(input_ids=torch.tensor([[*PREFIX, *[IDS[IMAGE]] * VISUAL_TOKENS]] * 2), pixel_values=batch.pixels)
        assert handle.trace is not None
        scores = torch.tensor([image.scores for image in handle.trace.images])
    passed = run(batch, compression, packing)
    heads = model.config.vision_config.num_attention_heads
    assert passed.attended is not None and passed.cls is not None
    torch.testing.assert_close(passed.attended * heads, scores)
    goal = (batch.targets.center > 0) | (batch.targets.digit > 0)
    perfect = goal / goal.sum(1, keepdim=True)
    assert coverage_loss(perfect, batch.targets) < 1e-3 < 0.1 < coverage_loss(scores / heads, batch.targets)


def test_a_compressed_step_trains_tower_and_projector() -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config())
    attention.register()
    model.set_attn_implementation(attention.NAME)
    step = LanguageStep(model, LanguageHeads(TEXT_WIDTH), VisionHeads(VISION_WIDTH), True)
    compression = duet_vlm.DuetConfig.preset("duet", model=model, keep=0.11)
    batch = make_batch(np.random.default_rng(6), 2, VISUAL_TOKENS)
    answers = []
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(6):
        loss, numbers = step(batch, 0.0, True, compression=compression)
        loss.backward()
        answers.append(numbers["answer"])
        for part in (model.model.vision_tower.embeddings, model.model.multi_modal_projector):
            assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in part.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert answers[-1] < 0.8 * answers[0]
    loss, numbers = step(batch, 1.0, True, compression=compression)
    assert loss.isfinite() and "hint_sources" in numbers and "hint_tally" in numbers


def test_the_cost_of_a_step_is_counted_and_measured() -> None:
    full = step_flops([VISUAL_TOKENS] * 12)
    # by hand: tower of 6 layers on 197 tokens, decoder of 12 on 198 + 164, width 128 and 160, backward as two forwards
    tower = 6 * (2 * 197 * 12 * 128**2 + 4 * 197**2 * 128)
    decoder = 12 * (2 * 362 * (4 * 160**2 + 3 * 160 * 432) + 4 * (198**2 + 164 * 362) * 160)
    assert full == 3 * (tower + decoder)
    rows = measure([0.11], scenes=1, rounds=1, compiled=False)["budgets"]
    assert list(rows) == ["100%", "11%"]
    assert rows["11%"]["flops_ratio"] == round(step_flops([35] * 6 + [17] * 3 + [0] * 3) / full, 4)
    assert len(rows["11%"]["samples"]) == 1 and rows["11%"]["cpu_seconds"] > 0


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
    from recipes.demo import language

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
    # the last stage again, from the same start, compressed in turn with full tokens
    few = tmp_path / "whole" / "checkpoints" / "few.pt"
    train(tmp_path / "duet", replace(TINY, keeps=(1.0, 0.11)), processes=1, compiled=False, start=few)
    assert [p.name for p in (tmp_path / "duet" / "checkpoints").glob("*.pt")] == ["full.pt"]
    other = LlavaForConditionalGeneration.from_pretrained(tmp_path / "duet")
    assert not hasattr(other.config, "duet")
    assert any(not torch.equal(whole[k], v) for k, v in other.state_dict().items())
