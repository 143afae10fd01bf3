"""Ranking scores are the layer's own attention: every decoder's, against its stock eager attention weights."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers
from oracle import stage_2
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.host import attention
from duet_vlm.stage2 import ranking
from duet_vlm.stage2.attention import attention as attention_paid
from duet_vlm.tensors.streamed import Places, Softmax, column_sums

WINDOW = 20
SLIDING = ["sliding_attention", "full_attention"]
DECODERS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": dict(sliding_window=WINDOW),
    "Qwen2": dict(sliding_window=WINDOW, use_sliding_window=True, layer_types=SLIDING),
    "Qwen3": dict(head_dim=8),
    "Gemma": dict(head_dim=8),
    "Gemma2": dict(head_dim=8, sliding_window=WINDOW, layer_types=SLIDING, attn_logit_softcapping=1.5),
    "Gemma3Text": dict(head_dim=8, sliding_window=WINDOW, layer_types=SLIDING),
    "Phi3": dict(sliding_window=WINDOW),
    "Cohere": {},
    "Cohere2": dict(sliding_window=WINDOW, layer_types=SLIDING),
    "Granite": dict(attention_multiplier=0.5),
    "Starcoder2": dict(sliding_window=WINDOW),
    "GptOss": dict(
        head_dim=8, sliding_window=WINDOW, layer_types=SLIDING, num_local_experts=2, num_experts_per_tok=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "Olmo2": {},
    "StableLm": dict(qk_layernorm=True),
}  # fmt: skip
SCALED = {  # queries are scaled by positions, in steps of four
    "Ministral3": dict(head_dim=8, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 4,
        "llama_4_scaling_beta": 2.0,
    }),
}  # fmt: skip


def build(kind: str) -> Any:
    text = getattr(transformers, f"{kind}Config")(**{**tiny.TEXT, "num_hidden_layers": 2, **(DECODERS | SCALED)[kind]})
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**tiny.VISION),
            text_config=text,
            image_token_id=98,
            vision_feature_layer=-2,
            image_seq_length=tiny.PATCHES,
        )
    ).eval()
    tiny.randomize(model, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    model.set_attn_implementation("eager")
    return model


def stock(model: Any, batch: dict[str, Tensor]) -> tuple[list[dict[str, Any]], Any]:
    """What each layer is given, and the attention weights of each."""
    given: list[dict[str, Any]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda m, a, k: given.append({**k, "hidden": a[0]}), with_kwargs=True)
        for layer in model.model.language_model.layers
    ]
    with torch.no_grad():
        maps = model(**batch, output_attentions=True, use_cache=False).attentions
    for hook in hooks:
        hook.remove()
    return given, maps


@pytest.mark.parametrize("kind", DECODERS)
def test_scores_are_the_layers_own_attention(kind: str) -> None:
    model, batch = build(kind), tiny.inputs(rows=((5, 9), (3, 4)))
    given, maps = stock(model, batch)
    length = batch["input_ids"].shape[1]
    asked = torch.arange(length - 4, length).expand(2, -1)
    places = Places(asked, torch.arange(length).where(batch["attention_mask"].bool(), -1))
    for number, layer in enumerate(model.model.language_model.layers):
        hidden = given[number].pop("hidden")
        normed = attention.attention_input(layer, hidden, **given[number])
        rope = given[number]["position_embeddings"]
        query, softmax = attention.queries(
            layer.self_attn, normed[:, -4:], position_embeddings=tuple(r[:, -4:] for r in rope)
        )
        key = attention.keys(layer.self_attn, normed, position_embeddings=rope)
        expected = maps[number][:, :, -4:].mean((1, 2))
        scores = ranking.text_to_vision(query, key, places, softmax)
        torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-4)
        if softmax.window is not None:
            assert bool((expected[:, : length - 4 - WINDOW] == 0).all())  # the window is felt


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", [*DECODERS, *SCALED])
def test_a_model_ranks_by_its_own_attention(kind: str, layer: int) -> None:
    model, batch = build(kind), tiny.inputs()
    _, maps = stock(model, batch)
    visual, asked = list(range(5, 5 + tiny.PATCHES)), list(range(5 + tiny.PATCHES, batch["input_ids"].shape[1]))
    expected = maps[layer][0][:, asked].mean((0, 1))[visual]
    config = DuetConfig(drops=[Drop(1, 0.4, rank_at=layer)], query="all", positions="keep")
    with duet_vlm.apply(model, config) as duet, torch.no_grad():
        model(**batch)
    assert duet.trace is not None
    drop = duet.trace.samples[0].drops[0]
    torch.testing.assert_close(torch.tensor(drop.scores), expected, atol=1e-6, rtol=1e-4)


def test_compiled_attention_modules_are_looked_into() -> None:
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig(dominant=13, contextual=4, drops=[Drop(2, 0.5), Drop(4, 0.25)])
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()), torch.no_grad():
        expected = model(**batch).logits
    for layer in [*model.model.language_model.layers, *model.model.vision_tower.encoder.layers]:
        layer.self_attn = torch.compile(layer.self_attn, backend="eager")
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()), torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, expected)


def test_what_a_cache_holds_takes_part_and_is_not_scored() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, heads, 30, 6, generator=generator) for heads in (4, 2))
    valid = [i not in (2, 11) for i in range(30)]
    asked = [25, 27, 29]
    visual = torch.zeros(1, 18, dtype=torch.bool)
    visual[:, 1:9] = True
    places = Places(torch.tensor([asked]), torch.tensor([[i if valid[i] else -1 for i in range(30)]]))
    hidden = torch.zeros(1, 18, 4)
    seen = ranking.RankingInputs(
        query=query[:, :, asked],
        key=key,  # 12 columns of a cache
        places=places,
        softmax=Softmax(6**-0.5),
        hidden=hidden,
        questions=hidden[:, :3],
        visual=visual,
        spans=visual.long(),
        limits=torch.tensor([0, 4]),
    )
    assert seen.past == 12
    expected = stage_2(query[0], key[0], asked, valid)[12:]
    torch.testing.assert_close(attention_paid(seen)[0], torch.tensor(expected), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("block", [1, 100, 1000])
@pytest.mark.parametrize("window", [None, 7])
def test_blocks_of_any_size_give_the_same_sums(monkeypatch: pytest.MonkeyPatch, block: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(3, heads, n, 6, generator=generator) for heads, n in ((4, 17), (2, 40)))
    seen = torch.arange(40).expand(3, -1).clone()
    seen[0, :5], seen[1, 35:], seen[2, 20] = -1, -1, -1
    asked = torch.arange(23, 40).expand(3, -1).clone()
    asked[0, 3], asked[1, 12:], asked[2, 0] = -1, -1, -1
    softmax = Softmax(0.4, 2.0, window, torch.randn(4, generator=generator))
    bias = torch.rand(3, 40, generator=generator)
    logits = (query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.4 / 2).tanh() * 2 + bias[:, None, None]
    back = asked[..., None] - seen[:, None]
    visible = (back >= 0) & (seen >= 0)[:, None] & (back < (window or 100))
    logits = torch.cat(
        [logits.masked_fill(~visible[:, None], -torch.inf), softmax.sinks.view(1, 4, 1, 1).expand(3, -1, 17, 1)], 3
    )
    expected = (logits.softmax(-1)[..., :-1].mean(1) * (asked >= 0)[..., None]).sum(1)
    monkeypatch.setattr("duet_vlm.tensors.streamed.block_size", lambda device: block)
    torch.testing.assert_close(
        column_sums(query, key, softmax, Places(asked, seen), bias), expected, atol=1e-6, rtol=1e-5
    )
