"""QLoRA: adapters on a language model in 8 or 4 bits train through both stages as the masking oracle says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from exactness import close
from gradients import ROWS, compare, gradients, labelled, masked_gradients
from matrix import apply

peft = pytest.importorskip("peft", reason="adapters are tested with the train extra, which brings peft")
DECODER = r".*language_model.*(q|k|v|o|up|down)_proj"


def eight_bit(folder: Path) -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason="8-bit weights are tested with torchao")
    model = tiny.build()
    quantization.quantize_(
        model, quantization.Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and "language_model" in name,
    )  # fmt: skip
    return model


def four_bit(folder: Path) -> Any:
    pytest.importorskip("bitsandbytes", reason="4-bit weights are tested where bitsandbytes is installed")
    from transformers import BitsAndBytesConfig

    stock = tiny.build()
    stock.save_pretrained(folder)
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
    )  # fmt: skip
    model = type(stock).from_pretrained(folder, quantization_config=settings, device_map="cpu")
    assert model.model.language_model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    return model


@pytest.mark.parametrize("quantised", [eight_bit, four_bit])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_adapters_on_quantised_weights(quantised: Any, checkpointing: bool, tmp_path: Path) -> None:
    model = quantised(tmp_path)
    torch.manual_seed(3)
    handle = apply(model)
    lora = peft.LoraConfig(r=2, target_modules=DECODER, init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora).train()
    batch = tiny.inputs(rows=ROWS, padding="right")
    labels = labelled(batch)
    expected_loss, expected = masked_gradients(model, handle, batch, labels)
    assert expected and all("lora" in name for name in expected)
    if checkpointing:
        model.enable_input_require_grads()
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    loss = adapted(**batch, labels=labels).loss
    close(loss.detach(), expected_loss)
    compare(gradients(model, loss), expected)
