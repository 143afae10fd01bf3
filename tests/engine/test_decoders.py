"""LLaVA over decoders of many kinds: what `apply` accepts runs right, what it cannot compress is refused by it."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError

RUN = (
    "Llama", "Mistral", "Qwen2", "Qwen3", "Qwen3Moe", "Gemma2", "Gemma3Text", "Olmo2", "Olmo3", "GptOss", "Cohere2",
    "SmolLM3", "Exaone4", "Phi3", "Glm4", "Nemotron", "Ernie4_5", "Arcee", "StableLm", "Persimmon", "Starcoder2",
    "Qwen3_5Text", "Qwen3Next", "Lfm2", "Ministral3", "Llama4Text",
)  # fmt: skip
CONVOLUTIONS = ["full_attention", "conv", "conv", "full_attention"]
HYBRID: dict[str, dict[str, Any]] = {  # the drop before layer 2 is ranked at layer 0
    kind: dict(
        layer_types=["full_attention", "linear_attention", "linear_attention", "full_attention"], head_dim=8,
        linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
    )
    for kind in ("Qwen3_5Text", "Qwen3Next")
} | {
    kind: dict(layer_types=CONVOLUTIONS) for kind in ("Lfm2", "Lfm2Moe")
}  # fmt: skip
REFUSED = {
    "MiniMax": "MiniMaxDecoderLayer has no self_attn that knows its layer_idx and config",
    "FalconH1": "FalconH1Model keeps a LinearAttentionAndFullAttentionLayer",
    "Lfm2Moe": "Lfm2MoeModel has no rotary_emb",
    "GPTNeoX": "GPTNeoXLayer.forward takes",
}
LAYERED = ("Gemma3Text", "Olmo3")  # rotary embeddings of their own in layers of each kind


def build(kind: str) -> Any:
    text = getattr(transformers, f"{kind}Config")(**{**tiny.TEXT, "num_hidden_layers": 4, **HYBRID.get(kind, {})})
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny.VISION), text_config=text, image_token_id=tiny.IMAGE,
        image_seq_length=tiny.PATCHES,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, tiny.PAD
    return model


@pytest.mark.parametrize("kind", RUN)
@pytest.mark.parametrize("positions", ["auto", "keep"])
@torch.no_grad()
def test_a_batch_is_its_rows_and_a_cache_changes_nothing(kind: str, positions: str) -> None:
    model, batch = build(kind), tiny.inputs(rows=((5, 9), (3, 4)))
    config = DuetConfig(dominant=9, contextual=3, drops=[Drop(2, 0.5)], positions=positions)
    stock = model(**batch).logits
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle:
        got = model(**batch).logits
        assert [sample.tokens_per_layer for sample in handle.trace.samples] == [[12, 12, 6, 6]] * 2
        for row in range(2):
            assert (got[row, -1] - model(**tiny.single(batch, row)).logits[0, -1]).abs().max() < 1e-5
        ask = dict(max_new_tokens=4, do_sample=False, suppress_tokens=[tiny.IMAGE])
        assert torch.equal(model.generate(**batch, **ask), model.generate(**batch, **ask, use_cache=False))
        assert (got[:, -1] - stock[:, -1]).abs().max() > 1e-6
    assert torch.equal(model(**batch).logits, stock)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_compressed_is_refused_by_apply(kind: str) -> None:
    model = build(kind)
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    with pytest.raises(DuetError, match=REFUSED[kind]) as error:
        duet_vlm.apply(model, DuetConfig(dominant=9, drops=[Drop(2, 0.5)]), tokenizer=tiny.Words())
    assert transformers.__version__ in str(error.value) and str(error.value).endswith(".")
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    assert not hasattr(model.config, "duet")


def test_rotary_embeddings_of_another_kind_are_refused() -> None:
    model = build("Llama")
    model.model.language_model.rotary_emb.forward = lambda x, position_ids: torch.ones(1)
    with pytest.raises(DuetError, match="LlamaRotaryEmbedding gives neither cosines and sines nor complex numbers"):
        duet_vlm.apply(model, DuetConfig(dominant=9))


@pytest.mark.parametrize("kind", LAYERED)
def test_layers_with_rotary_embeddings_of_their_own_keep_positions(kind: str) -> None:
    with pytest.raises(DuetError, match=r"positions 'renumber' is not possible for .*: its layers have rotary"):
        duet_vlm.apply(build(kind), DuetConfig(dominant=9, positions="renumber"))
