"""What a decoder layer costs, against the parameters of the stock modules it runs through."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
import zoo
import zoo_qwen

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.decoder_shape import DecoderShape
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.measuring.costs import cost_report

TOKENS = 10
FAMILIES = ("llava", "qwen3_vl", "qwen3_vl_moe", *zoo_qwen.HYBRIDS)


def parameters(module: Any, *names: str) -> int:
    """Of the matrices and kernels of a module, or of its children of these names."""
    children = [child for name, child in module.named_children() if name in names] if names else [module]
    return sum(p.numel() for child in children for p in child.parameters() if p.ndim > 1)


def feed_forward(layer: Any, text: Any) -> int:
    """What one token runs through, without the gate of the shared expert, a vector."""
    mlp = getattr(layer, "mlp", None) or layer.feed_forward
    experts = getattr(mlp, "experts", None)
    if experts is None:
        return parameters(mlp)
    count = text.num_local_experts if hasattr(text, "num_local_experts") else text.num_experts
    chosen = parameters(experts) * text.num_experts_per_tok // count
    return chosen + parameters(mlp, "gate", "router", "shared_expert", "shared_experts")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_multiplies_by_each_of_its_parameters_once(family: str) -> None:
    model = zoo.build(family)
    text, decoder = model.config.get_text_config(), model.base_model.get_decoder()
    shape = DecoderShape.of(model.config, bytes_per_value=4)
    for i, layer in enumerate(decoder.layers):
        linear = not hasattr(layer, "self_attn")
        if hasattr(layer, "conv"):
            mixing = parameters(layer.conv)
        elif linear:
            # the state of each head: read by the key, changed by an outer product, read by the query
            mixing = 3 * text.linear_num_value_heads * text.linear_key_head_dim * text.linear_value_head_dim
            mixing += parameters(layer.linear_attn)
        else:
            mixing = parameters(layer.self_attn)
            assert shape.attention_flops(TOKENS, i) == 2 * TOKENS**2 * shape.heads * shape.head_dim
        flops = shape.layer_flops(TOKENS, i) - shape.attention_flops(TOKENS, i)
        assert flops == 2 * TOKENS * (mixing + feed_forward(layer, text))
        keys = 0 if linear else 2 * layer.self_attn.k_proj.out_features * 4
        assert (shape.layer_kv_bytes(TOKENS, i), shape.is_linear(i)) == (TOKENS * keys, linear)
    assert shape.prefill_flops([TOKENS] * 5) == (
        sum(shape.layer_flops(TOKENS, i) for i in range(5)) + 2 * text.hidden_size * text.vocab_size
    )


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "gemma4_shared", "gemma4_moe", "gemma4_unified"])
def test_layers_that_differ_cost_what_their_modules_and_caches_do(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ((30,),))  # a window is 24
    text, decoder = model.config.get_text_config(), model.base_model.get_decoder()
    shape = DecoderShape.of(model.config, bytes_per_value=4)
    stored = model(**batch, use_cache=True).past_key_values.layers
    for i, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        borrows, window = getattr(attention, "is_kv_shared_layer", False), 24 if attention.is_sliding else 30
        names = ("mlp", "per_layer_input_gate", "per_layer_projection", "router")
        weights = parameters(layer, *names) + parameters(attention)
        if hasattr(layer, "experts") and text.enable_moe_block:
            weights += parameters(layer.experts) * text.top_k_experts // text.num_experts
        if getattr(text, "hidden_size_per_layer_input", 0):
            weights += parameters(decoder.per_layer_model_projection) // len(decoder.layers)
        seen = [min(n + 1, window) for n in range(30)]
        pairs, passing = (seen[-1], 1) if borrows else (sum(seen) - window / 2, 30)  # half of a square: its diagonal
        assert shape.layer_flops(30, i) == 2 * passing * weights + 4 * text.num_attention_heads * (
            attention.head_dim * pairs
        )
        assert shape.stores(i) == (not borrows)
        keys = 0 if borrows else stored[i].keys.nbytes + stored[i].values.nbytes
        assert shape.layer_kv_bytes(30, i, compressed=False) == keys
        held = 30 if attention.is_sliding and not borrows else None  # a compressed cache lets nothing pass
        assert held is None or shape.layer_kv_bytes(30, i) * 23 == keys * 30


@pytest.mark.parametrize("adjusted", [False, True])
def test_widths_that_lfm2_makes_of_its_settings_are_counted(adjusted: bool) -> None:
    """A feed-forward of two thirds, in steps."""
    config = transformers.Lfm2Config(
        vocab_size=99, hidden_size=32, intermediate_size=300, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], block_multiple_of=64,
        block_auto_adjust_ff_dim=adjusted,
    )  # fmt: skip
    shape = DecoderShape.of(config)
    for i, layer in enumerate(transformers.Lfm2Model(config).layers):
        flops = shape.layer_flops(TOKENS, i) - shape.attention_flops(TOKENS, i)
        assert flops == 2 * TOKENS * parameters(layer)


@pytest.mark.parametrize("family", ["llama4", "deepseek_ocr2"])
def test_layers_with_experts_and_without_are_averaged(family: str) -> None:
    model = zoo.build(family)
    text, layers = model.config.get_text_config(), zoo.decoder(model).layers
    shape = DecoderShape.of(model.config)
    expected = sum(parameters(layer.self_attn) + feed_forward(layer, text) for layer in layers) / len(layers)
    found = (shape.layer_flops(TOKENS) - shape.attention_flops(TOKENS)) / (2 * TOKENS)
    assert abs(found - expected) <= 0.5  # a mean, rounded


def test_a_budget_saves_keys_where_there_are_keys_and_refuses_what_cannot_be_ranked() -> None:
    config = shape_config("qwen3.5-9b")
    report = cost_report(config, DuetConfig.preset("duet", model=config, keep=0.33), 64, grid=(48, 48))
    with_keys = [row["layer"] for row in report["layers"] if row["kv_bytes_before"]]
    assert with_keys == list(range(3, 32, 4))
    assert all(0 < row["kv_bytes"] < row["kv_bytes_before"] for row in report["layers"] if row["layer"] in with_keys)
    assert all(row["flops"] < row["flops_before"] for row in report["layers"])
    with pytest.raises(DuetError, match="the drop at layer 2 cannot be ranked"):
        cost_report(config, DuetConfig(drops=[Drop(2, 0.5)]), 64, grid=(48, 48))
