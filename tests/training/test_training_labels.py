"""Training with both stages on: loss and gradients are a masking oracle's; answers never ask; what has none stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from exactness import close
from gradients import IGNORED, ROWS, UNANSWERED, compare, gradients, labelled, masked_gradients
from matrix import apply
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig

CONFIGS = ["both stages", "both stages, keep positions", "stage 2 alone, ranked where it drops", "all gone late"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_are_the_oracles(family: str, name: str) -> None:
    model, batch = tiny.build(family).train(), tiny.inputs(family, ROWS, padding="right")
    labels, handle = labelled(batch), apply(model, family, name)
    expected_loss, expected = masked_gradients(model, handle, batch, labels)
    loss = model(**batch, labels=labels).loss
    close(loss.detach(), expected_loss)
    compare(gradients(model, loss), expected)
    assert any("vision" in n or "visual" in n for n in expected)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointing_changes_nothing(reentrant: bool) -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="left")
    labels, handle = labelled(batch), apply(model)
    expected_loss, expected = masked_gradients(model, handle, batch, labels)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    loss = model(**batch, labels=labels).loss
    close(loss.detach(), expected_loss)
    compare(gradients(model, loss), expected)


@pytest.mark.parametrize("reentrant", [None, True, False], ids=["no checkpointing", "reentrant", "not reentrant"])
def test_adapters_get_the_gradients_of_the_oracle(reentrant: bool | None) -> None:
    peft = pytest.importorskip("peft", reason="adapters are tested with the train extra, which brings peft")
    torch.manual_seed(3)
    model, batch = tiny.build(), tiny.inputs(rows=ROWS, padding="right")
    labels, handle = labelled(batch), apply(model)
    lora = peft.LoraConfig(r=2, target_modules=r".*language_model.*(q|k|v|o|up|down)_proj", init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora).train()
    expected_loss, expected = masked_gradients(model, handle, batch, labels)
    assert expected and all("lora" in name for name in expected)
    if reentrant is not None:
        adapted.enable_input_require_grads()
        adapted.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    loss = adapted(**batch, labels=labels).loss
    close(loss.detach(), expected_loss)
    compare(gradients(model, loss), expected)


def test_accumulated_steps_equal_one_batch() -> None:
    """As the Trainer does it: every part of a batch is told how many labels the whole one has."""
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="right")
    labels = labelled(batch)
    apply(model)
    loss = model(**batch, labels=labels).loss
    expected = gradients(model, loss)
    count = (labels[:, 1:] != IGNORED).sum()
    total = torch.zeros(())
    for row in range(len(ROWS)):
        part, real = tiny.single(batch, row), batch["attention_mask"][row].bool()
        share = model(**part, labels=labels[row, real][None], num_items_in_batch=count).loss
        share.backward()
        total += share.detach()
    close(total, loss.detach())
    # on top of the whole batch's, which are there already
    twice = {n: p.grad / 2 for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    compare(twice, expected)


@pytest.mark.parametrize("late", [0.25, 0.0])
@pytest.mark.parametrize("merge", [False, True], ids=["stage 2", "both stages"])
def test_samples_without_an_answer_lose_nothing_in_stage_2(late: float, merge: bool) -> None:
    model, batch = tiny.build().train(), tiny.inputs(rows=ROWS, padding="right")
    labels = labelled(batch)
    drops = [Drop(2, 0.5), Drop(4, late)]
    stage_1 = dict(dominant=13, contextual=4) if merge else {}
    handle = duet_vlm.apply(model, DuetConfig(**stage_1, drops=drops), tokenizer=tiny.Words())
    model(**batch, labels=labels)
    assert handle.trace is not None
    image = 17 if merge else 36
    counts = [sample.tokens_per_layer for sample in handle.trace.samples]
    after = [image // 2] * 2 + [int(image * late)]
    assert counts[0] == [image] * 2 + after
    assert counts[1] == [2 * n for n in counts[0]]
    assert counts[UNANSWERED] == [image] * 5
    assert counts[3] == [0] * 5
    with torch.no_grad():  # without labels it is a question like any other
        model.eval()(**batch)
    assert handle.trace.samples[UNANSWERED].tokens_per_layer == counts[0]


def test_answers_never_choose() -> None:
    """Other answers to the same questions keep the same tokens, over several turns too."""
    model, batch = tiny.build().train(), tiny.inputs(rows=((5, 16),))
    labels = torch.full_like(batch["input_ids"], IGNORED)
    answers = torch.zeros_like(labels, dtype=torch.bool)
    answers[0, 45:48] = answers[0, 52:57] = True
    labels[answers] = batch["input_ids"][answers]
    config = DuetConfig(drops=[Drop(1, 0.5)], query="all")
    handle = duet_vlm.apply(model, config, tokenizer=tiny.Words())

    def chosen(batch: dict[str, Any], **given: Tensor) -> Any:
        model(**batch, **given)
        assert handle.trace is not None
        return handle.trace.samples[0]

    before = chosen(batch, labels=labels)
    assert before.queries == [*range(41, 45), *range(48, 52)]
    other = copy.deepcopy(batch)
    other["input_ids"][0, 52:57] = torch.tensor([3, 6, 9, 12, 15])
    assert chosen(other, labels=other["input_ids"].masked_fill(~answers, IGNORED)).drops == before.drops
    # where the loss is computed outside, the labels come under a name that the stock model does not know
    assert chosen(batch, duet_labels=labels).queries == before.queries
    with pytest.warns(UserWarning, match="without labels"):
        assert chosen(batch).queries == [*range(41, 57)]


def test_no_gradient_through_rankings_but_into_tower_and_projector() -> None:
    """The kept tokens alone carry gradients: scores are cut off, merged tokens are not."""
    model, batch = tiny.build().train(), tiny.inputs(rows=((5, 12),))
    labels, handle = labelled(batch), apply(model)
    model(**batch, labels=labels).loss.backward()
    assert handle.engine.last is not None
    assert not any(scores.requires_grad for scores in handle.engine.last.scores.values())
    projector = model.model.multi_modal_projector.linear_1.weight.grad
    tower = model.model.vision_tower.encoder.layers[0].self_attn.v_proj.weight.grad
    assert projector.any() and tower.any()
