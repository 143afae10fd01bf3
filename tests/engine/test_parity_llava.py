"""Golden values of the published implementation, where the folder that holds them is at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import FOLDER, close, golden, weights
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.families import cls_tower
from duet_vlm.stage1 import Encoded
from duet_vlm.stage1.duet import duet

pytestmark = pytest.mark.skipif(
    not (FOLDER / "llava_e2e.json").exists(), reason=f"no golden values in {FOLDER}: set DUET_PARITY to their folder"
)
CASES = ("stage2_only_A", "stage1_only_A", "l46_r05_00_A", "l36_r05_025_A", "salient_A")


@pytest.mark.parametrize("index", [0, 1])
def test_stage_1_gives_the_golden_tokens(index: int) -> None:
    info, values = golden("llava_v2v")
    setting = info["settings"][index]
    tower = CLIPVisionModel(CLIPVisionConfig(**info["vision_config"])).eval()
    tower.load_state_dict(weights(values), strict=True)
    prefix = setting["id"]
    layer, seen = tower.encoder.layers[-2], {}
    layer.self_attn.register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True)
    with torch.no_grad():
        hidden = tower(values["pixel_values"], output_hidden_states=True).hidden_states[-2]
        scores, metric = cls_tower.cls_attention(layer.self_attn, seen["hidden_states"])
    close(scores, values[f"{prefix}.cls_attention_sum"])
    close(metric, values[f"{prefix}.metric"][:, 1:])
    encoded = Encoded(scores, metric, hidden[:, 1:])
    merge = duet(encoded, setting["dominant_patches"], setting["contextual"], setting["cluster_width"])
    assert torch.equal(merge.dominant, values[f"{prefix}.dominant_patches_raster"])
    assert torch.equal(merge.anchors, values[f"{prefix}.anchor_patches"])
    assert torch.equal(merge.members, values[f"{prefix}.merge_patches"])
    assert torch.equal(merge.joins, values[f"{prefix}.assignment"])
    tokens = torch.cat([hidden[:, :1], merge.retained(hidden[:, 1:])], dim=1)
    close(tokens, values[f"{prefix}.tokens"])


class Asked:
    """A tokenizer that calls the chosen places of one prompt nouns and everything else stop words."""

    def __init__(self, question: list[int], nouns: set[int]):
        self.text = "".join(" cat" if i in nouns else " the" for i in range(len(question)))
        self.question = question

    def decode(self, ids: Any, **_: Any) -> str:
        ids = [ids] if isinstance(ids, int) else list(ids)
        starts = [s for s in range(len(self.question)) if self.question[s : s + len(ids)] == ids]
        return self.text[4 * starts[0] : 4 * (starts[0] + len(ids))]


def build() -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
    info, values = golden("llava_e2e")
    config = dict(info["stock_config"])
    vision, text = CLIPVisionConfig(**config.pop("vision_config")), LlamaConfig(**config.pop("text_config"))
    config["image_token_id"] = config.pop("image_token_index")
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, **config)).eval()
    model.load_state_dict(weights(values), strict=True)
    model.generation_config.eos_token_id = None
    return info, values, model


def stock_prompt(prompt: torch.Tensor) -> torch.Tensor:
    row = prompt.flatten().tolist()
    at = row.index(-200)
    return torch.tensor([row[:at] + [199] * 64 + row[at + 1 :]])


def setup(info: dict[str, Any], case: dict[str, Any], prompt: torch.Tensor) -> tuple[DuetConfig, Any]:
    stage1 = case["stage1"] or [None, 0, 4]
    drops = [Drop(layer, ratio) for layer, ratio in zip(case["layer_list"], case["ratio_list"], strict=True)]
    row = prompt.flatten().tolist()
    at, nouns = row.index(-200), set(case.get("idxs") or [])
    tokenizer = Asked([199, *row[at + 1 :]], {i - at for i in nouns})
    query = "salient" if case["use_salient_tokens"] else "all"
    return DuetConfig(stage1[0], stage1[1], stage1[2], drops=drops, query=query), tokenizer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case_id", CASES)
def test_both_stages_give_the_golden_logits(case_id: str, attention: str) -> None:
    info, values, model = build()
    model.set_attn_implementation(attention)
    case = next(c for c in info["cases"] if c["id"] == case_id)
    prompt = values["prompt_A"]
    config, tokenizer = setup(info, case, prompt)
    ids = stock_prompt(prompt)
    pixels = values["pixel_values"][:1]
    handle = duet_vlm.apply(model, config, tokenizer=tokenizer)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, max_new_tokens=8, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        encoded = model.model.get_image_features(pixels, return_dict=True)
    if config.merges:
        embeds = encoded.duet.features[0]
        close(embeds[: case["n_visual_after_stage1"]], values[f"{case_id}.visual_embeds"].reshape(-1, embeds.shape[-1]))
    sample = handle.trace.samples[0]
    entering = next((d.kept for d in sample.drops if d.layer == 0), sample.visual)
    for stage, drop in enumerate(d for d in sample.drops if d.layer > 0):
        kept = [entering.index(i) for i in drop.kept]
        assert len(kept) == case["kept_visual_after_each_stage"][stage]
        expected = values.get(f"{case_id}.stage{stage}.b0.kept_rel_stage1")
        assert expected is None or kept == expected.tolist()
        scores = values.get(f"{case_id}.stage{stage}.b0.scores")
        if drop.scores and scores is not None:
            close(torch.tensor(drop.scores), scores.flatten())
    stored = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert stored == [n + 7 for n in case["kv_len_per_layer_after_prefill"]]
    close(out.logits[0], values[f"{case_id}.prefill_last_logits"].reshape(1, -1))
    assert out.sequences[0, ids.shape[1] :].tolist() == values[f"{case_id}.gen_tokens"].flatten().tolist()
    steps = torch.stack(out.logits, 1)[0]
    golden_steps = values[f"{case_id}.gen_step_logits"].reshape(-1, steps.shape[-1])
    close(steps[-len(golden_steps) :], golden_steps)


def test_training_gives_the_golden_loss() -> None:
    info, values, model = build()
    case = info["training_cases"][0]
    config, tokenizer = setup(info, case, values["prompt_A"])
    row, labels = values["train_b1_A.input_ids"][0].tolist(), values["train_b1_A.labels"]
    at = row.index(-200)
    ids = torch.tensor([row[:at] + [199] * 64 + row[at + 1 :]])
    spread = torch.cat([labels[:, :at], torch.full((1, 64), -100), labels[:, at + 1 :]], dim=1)
    handle = duet_vlm.apply(model, config, tokenizer=tokenizer)
    loss = model(input_ids=ids, pixel_values=values["train_b1_A.images"], labels=spread).loss
    loss.backward()
    close(loss.detach(), values["train_b1_A.loss"])
    assert handle.trace is not None
    drop = handle.trace.samples[0].drops[1]
    entering = handle.trace.samples[0].drops[0].kept
    assert [entering.index(i) for i in drop.kept] == values["train_b1_A.stage0.b0.kept_rel_stage1"].tolist()
    core = model.model
    close(core.language_model.layers[0].self_attn.q_proj.weight.grad, values["train_b1_A.grad.lm_layer0_q_proj"])
    close(core.multi_modal_projector.linear_1.weight.grad, values["train_b1_A.grad.projector_linear_1_weight"])
