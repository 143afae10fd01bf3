"""The demonstration model's training: what a step trains and costs, and that resumed runs equal whole ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

import duet_vlm
from duet_vlm.demo.model import TEXT_WIDTH, VISION_WIDTH, VISUAL_TOKENS, config
from duet_vlm.demo.vocabulary import IDS, IMAGE, processor
from recipes.demo import attention, loop
from recipes.demo.batches import PREFIX, causal_mask, make_batch
from recipes.demo.compressed import CompressedForward, coverage_loss
from recipes.demo.distributed import Workers
from recipes.demo.language import LanguageHeads, LanguageStep
from recipes.demo.timing import measure, step_flops
from recipes.demo.training import Recipe, train
from recipes.demo.vision import VisionHeads

TINY = Recipe(
    vision_steps=1, vision_scenes=2, again_steps=1, again_scenes=2, warmup_steps=1, warmup_scenes=2, few_steps=1,
    few_scenes=2, full_steps=2, full_scenes=2, save_every=1,
)  # fmt: skip


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
