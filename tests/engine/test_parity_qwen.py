"""Golden values of the published implementation on Qwen2.5-VL, where the folder that holds them is at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import FOLDER, close, golden, weights
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.families import encoding, qwen2_5_vl

pytestmark = pytest.mark.skipif(
    not (FOLDER / "qwen_e2e.json").exists(), reason=f"no golden values in {FOLDER}: set DUET_PARITY to their folder"
)


def build() -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
    info, values = golden("qwen_e2e")
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**info["stock_config"])).eval()
    model.load_state_dict(weights(values), strict=True)
    model.generation_config.eos_token_id = None
    return info, values, model


def test_attention_received_and_keys() -> None:
    _, values, model = build()
    stage = qwen2_5_vl.QwenStage1(model.model, DuetConfig(24, 4, 4), qwen2_5_vl.Qwen25VL())
    handles, call = stage.taps(), encoding.EncoderCall(stage, engine_only=False)
    with torch.no_grad(), encoding.within(call):
        model.model.visual(values["pixel_values_A"], grid_thw=values["grid_A"])
    for handle in handles:
        handle.remove()
    order = qwen2_5_vl.image_order(model.model.visual, values["grid_A"])
    close(call.scores[0][0][order], values["vis_A_sdpa_1_3.attn_received"])
    close(call.keys[0][0][order], values["vis_A_sdpa_1_3.metric"])


CASES = {
    "zip_A": DuetConfig(24, 4, 4),
    "ratio_default_A": DuetConfig(0.65, 0.05, 4),
    "zip_pdrop24_05_025_A": DuetConfig(24, 4, 4, drops=[Drop(2, 0.5), Drop(4, 0.25)], query="all"),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case_id", CASES)
def test_both_stages_give_the_golden_logits(case_id: str, attention: str) -> None:
    info, values, model = build()
    model.set_attn_implementation(attention)
    case = next(c for c in info["cases"] if c["id"] == case_id)
    config = CASES[case_id]
    ids = values["input_ids_A"][None]
    handle = duet_vlm.apply(model, config)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=values["pixel_values_A"],
            image_grid_thw=values["grid_A"], mm_token_type_ids=(ids == 195).long(), max_new_tokens=8,
            do_sample=False, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    image, sample = handle.trace.images[0], handle.trace.samples[0]
    assert image.dominant == values[f"{case_id}.dominant_raster"].tolist()
    assert image.anchors == values[f"{case_id}.anchor_tokens"].tolist()
    first = sample.visual[0]
    entering = sample.drops[0].kept
    assert [i - first for i in entering] == values[f"{case_id}.kept_visual_raster"].tolist()
    assert len(entering) == case["n_visual_after_stage1"]
    visual = set(sample.visual)
    after_stage_1 = [i for i in range(ids.shape[1]) if i not in visual or i in entering]
    for stage, drop in enumerate(d for d in sample.drops if d.layer > 0):
        kept = [j for j, i in enumerate(after_stage_1) if i not in visual or i in drop.kept]
        assert kept == values[f"{case_id}.stage{stage}.kept_seq_idx"].tolist()
        close(torch.tensor(drop.scores), values[f"{case_id}.stage{stage}.scores"])
    close(out.logits[0][0], values[f"{case_id}.prefill_last_logits"].flatten())
    assert out.sequences[0, ids.shape[1] :].tolist() == values[f"{case_id}.gen_tokens"].flatten().tolist()
    steps = torch.stack(out.logits, 1)[0]
    close(steps, values[f"{case_id}.gen_step_logits"].reshape(-1, steps.shape[-1]))
