"""The training of the model for pages: labels lie where texts do, and packed questions are single turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from duet_vlm.demo.vocabulary import ASSISTANT, EOS
from duet_vlm.pages.kinds import KINDS, make_page
from duet_vlm.pages.model import config, processor
from duet_vlm.pages.vocabulary import IDS, PAGE_WORDS, TOKENS, encode, tokenizer
from recipes.demo import attention
from recipes.demo.batches import causal_mask
from recipes.demo.targets import pixels
from recipes.pages import training
from recipes.pages.batches import PREFIX, make_batch
from recipes.pages.language import LanguageStep
from recipes.pages.targets import COLUMNS, PATCHES, SHARE, entries, targets
from recipes.pages.training import Recipe, train
from recipes.pages.vision import VisionHeads


def test_the_tokenizer_reads_numbers_by_digits_and_writes_them_back() -> None:
    made = tokenizer()
    text = "what has the price 4702 ?"
    ids = made(text, add_special_tokens=False)["input_ids"]
    assert ids == encode(text)
    assert [TOKENS[i] for i in ids[4:]] == ["4", "##7", "##0", "##2", "?"]
    assert made.decode(ids) == text and made.decode(encode("zebra" if "zebra" in IDS else "top-left")) == "top-left"
    assert made("zebra", add_special_tokens=False)["input_ids"] == [made.unk_token_id]


@pytest.mark.parametrize("kind", KINDS)
def test_patches_are_labelled_with_what_stands_on_them(kind: str) -> None:
    page = make_page(np.random.default_rng(5), kind)
    found = targets([page])
    word, key, column = (np.zeros(PATCHES, int) for _ in range(3))
    digits = np.zeros((PATCHES, 4), int)
    for patch in range(PATCHES):
        pixels_of = [(x, y) for y in range(patch // 20 * 8, patch // 20 * 8 + 8)
                     for x in range(patch % 20 * 8, patch % 20 * 8 + 8)]  # fmt: skip
        for text, (left, top, right, bottom) in page.texts:
            if sum(left <= x < right and top <= y < bottom for x, y in pixels_of) >= SHARE:
                if text.isdigit():
                    digits[patch] = [*(int(d) + 1 for d in text), *[0] * (4 - len(text))]
                    (owner,) = [(e.key, i) for e in page.entries for i, box in enumerate(e.value_boxes)
                                if box == (left, top, right, bottom)]  # fmt: skip
                    key[patch] = 1 + PAGE_WORDS.index(owner[0])
                    column[patch] = 1 + COLUMNS.index(page.heads[owner[1]])
                else:
                    word[patch] = 1 + PAGE_WORDS.index(text)
    assert (found.word[0].numpy() == word).all() and word.any()
    assert (found.digits[0].numpy() == digits).all() and digits.any() == (kind != "screen")
    assert (found.key[0].numpy() == key).all() and (found.column[0].numpy() == column).all()
    assert set(found.count.unique().tolist()) == {0, entries(page)}


def test_a_packed_question_is_answered_as_one_alone() -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config()).eval()
    batch = make_batch(np.random.default_rng(7), 2, None)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    core = model.model
    packing = attention.Packing(causal_mask(len(PREFIX) + PATCHES).float(), batch.visible.float())
    with torch.no_grad():
        projected = core.multi_modal_projector(
            core.vision_tower(pixel_values=batch.pixels, output_hidden_states=True).hidden_states[-2]
        )[:, 1:]
        embed = core.language_model.embed_tokens
        inputs = torch.cat([embed(torch.tensor(PREFIX)).expand(2, -1, -1), projected, embed(batch.ids)], 1)
        start = torch.arange(len(PREFIX) + PATCHES).expand(2, -1)
        position = torch.cat([start, start.shape[1] + batch.position], 1)
        states = core.language_model(inputs_embeds=inputs, position_ids=position, use_cache=False, packing=packing)
        packed = model.lm_head(states.last_hidden_state[:, len(PREFIX) + PATCHES :])
    model.set_attn_implementation("eager")
    made = processor()
    rng = np.random.default_rng(7)
    images = [make_page(rng).image for _ in range(2)]
    for b, image in enumerate(images):
        rows = batch.answers.b == b
        end = int(batch.answers.q[rows][np.flatnonzero(batch.answers.goal[rows] == IDS[EOS])[0]])
        ids = batch.ids[b, : end + 1].tolist()
        asking = ids.index(IDS[ASSISTANT])
        text = made.tokenizer.decode(ids[:asking])
        alone = made(images=Image.fromarray(image), text=f"USER: <image>\n{text} ASSISTANT:", return_tensors="pt")
        torch.testing.assert_close(alone["pixel_values"][0], pixels([image])[0], atol=1e-5, rtol=0)
        with torch.no_grad():
            expected = model(**alone).logits[0, -1]
        torch.testing.assert_close(packed[b, asking], expected, atol=1e-4, rtol=1e-4)
        assert batch.answers.goal[rows][batch.answers.q[rows] == asking].tolist() == [ids[asking + 1]]


def test_a_step_learns_from_answers_and_hints() -> None:
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config())
    attention.register()
    model.set_attn_implementation(attention.NAME)
    step = LanguageStep(model, VisionHeads(128), True)
    batch = make_batch(np.random.default_rng(6), 2, 64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    seen = []
    for _ in range(6):
        loss, numbers = step(batch, 1.0, True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(numbers)
    assert seen[-1]["answer"] < 0.8 * seen[0]["answer"]
    first, last = (sum(value for name, value in one.items() if "hint" in name) for one in (seen[0], seen[-1]))
    assert last < 0.97 * first


def test_an_interrupted_training_ends_like_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Recipe(
        vision_steps=1, vision_pages=2, again_steps=1, again_pages=2, warmup_steps=1, warmup_pages=2, few_steps=1,
        few_pages=2, full_steps=2, full_pages=2, save_every=1,
    )  # fmt: skip
    train(tmp_path / "whole", tiny, processes=1, compiled=False)
    train(tmp_path / "cut", tiny, processes=1, compiled=False, until="few")
    monkeypatch.setattr("recipes.demo.vision.train_vision", lambda *_: pytest.fail("it had been trained"))
    train(tmp_path / "cut", tiny, processes=1, resume=True, compiled=False)
    whole, cut = (LlavaForConditionalGeneration.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    with pytest.raises(training.DuetError, match="holds an earlier run"):
        train(tmp_path / "cut", tiny, processes=1)
