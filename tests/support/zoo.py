"""Every family as a tiny random model of a stock class, and prompts for it: text, images and videos, padded or not.

A prompt is a tuple of ints (so many words) and "i" (an image) and "v" (a video): (5, "i", 9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tiny
import torch
import zoo_fixed
import zoo_glm
import zoo_minicpm
import zoo_omni
import zoo_pixtral
import zoo_qwen
import zoo_siglip
import zoo_tiles
from torch import Tensor
from zoo_qwen import QWEN_TEXT

LAYERS = zoo_qwen.LAYERS
PAD, WORDS = 0, (3, 90)  # the ids that words are drawn from
IMAGE, VIDEO, START, END = 98, 97, 96, 95
Rows = tuple[tuple[int | str, ...], ...]
# (placeholders and what stands around them, what the processor would hand over)
Seen = tuple[list[int], dict[str, Tensor]]


@dataclass
class Member:
    """A family of the zoo.

    Attributes:
        make: a model with stock initialisation.
        image, video: (generator) -> one image or video; None where the family takes none.
        modality: what `image` makes: "video" where the model takes no images beside videos, in a row of their own.
        extras: (batch) -> more that its processor returns, made from the ids.
        mrope: whether its positions have three axes, which the model makes from ids and grids.
        stage_1: settings of stage 1 that fit its small images.
        renumbers: whether positions may be renumbered.
        repeats: whether stock repeats what was encoded for beams and several sequences; elsewhere it raises.
        along: the axis on which tensors of several images follow each other, where it is not the first.
    """

    make: Callable[[], Any]
    image: Callable[[torch.Generator], Seen] | None = None
    video: Callable[[torch.Generator], Seen] | None = None
    extras: Callable[[dict[str, Any]], dict[str, Tensor]] | None = None
    mrope: bool = False
    stage_1: tuple[int, int] = (7, 3)
    renumbers: bool = True
    modality: str = "image"
    repeats: bool = True
    along: dict[str, int] = field(default_factory=dict)


def build(family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model with large random weights, so that attention is far from uniform."""
    torch.manual_seed(seed)
    model = FAMILIES[family].make().to(dtype).eval()
    model.set_attn_implementation(attention)
    tiny.randomize(model, torch.Generator().manual_seed(seed))
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model


def inputs(family: str, rows: Rows, padding: str = "left", seed: int = 1, first: int = 0) -> dict[str, Any]:
    """A batch; row r is the same whatever stands beside it, given the same `seed` and `first` + r."""
    member, sequences, seen = FAMILIES[family], [], []
    for number, row in enumerate(rows, start=first):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        ids: list[int] = []
        for part in row:
            if isinstance(part, int):
                ids += torch.randint(*WORDS, (part,), generator=generator).tolist()
                continue
            maker = member.image if part == "i" else member.video
            assert maker is not None, f"{family} takes no {part}"
            places, tensors = maker(generator)
            ids += places
            seen.append(tensors)
        sequences.append(torch.tensor(ids))
    batch: dict[str, Any] = tiny.stack(sequences, padding)
    for key in dict.fromkeys(key for tensors in seen for key in tensors):
        batch[key] = torch.cat([tensors[key] for tensors in seen if key in tensors], member.along.get(key, 0))
    return extended(family, batch)


def extended(family: str, batch: dict[str, Any], tokens: Tensor | None = None) -> dict[str, Any]:
    """The batch with more text behind it, and what its processor makes of the ids."""
    batch = dict(batch)
    if tokens is not None:
        batch["input_ids"] = torch.cat([batch["input_ids"], tokens], 1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
        if not FAMILIES[family].mrope:
            # stock generate numbers the tokens of a padded row from its first real one
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    extras = FAMILIES[family].extras
    return batch | (extras(batch) if extras else {})


def visual(batch: dict[str, Any]) -> Tensor:
    """(B, S) bool."""
    return (batch["input_ids"] == IMAGE) | (batch["input_ids"] == VIDEO)


def is_hybrid(model: Any) -> bool:
    """Whether some decoder layers hold a state instead of keys and values."""
    return any(not hasattr(layer, "self_attn") for layer in model.base_model.get_decoder().layers)


def has_video(family: str) -> bool:
    return FAMILIES[family].video is not None


def rope_index(model: Any, batch: dict[str, Any]) -> Tensor:
    """(3, B, S) positions of a family whose positions have three axes."""
    wanted = ("image_grid_thw", "video_grid_thw", "target_sizes", "target_sizes_videos", "attention_mask",
              "mm_token_type_ids")  # fmt: skip
    given = {k: batch[k] for k in wanted if k in batch}
    if "video_second_per_grid" in batch:
        given["second_per_grids"] = batch["video_second_per_grid"]
    positions: Tensor = model.model.get_rope_index(batch["input_ids"], **given)[0]
    return positions


# ---- LLaVA ----


def _llava_image(family: str) -> Callable[[torch.Generator], Seen]:
    def image(generator: torch.Generator) -> Seen:
        if family != "llava_next":
            return [IMAGE] * tiny.PATCHES, {"pixel_values": torch.randn(1, 3, 24, 24, generator=generator)}
        tensors = {"pixel_values": torch.randn(1, 3, 3, 24, 24, generator=generator)}
        return [IMAGE] * tiny.image_tokens(family), tensors | {"image_sizes": torch.tensor([[24, 48]])}

    return image


def qwen_member(kind: str, video: Callable[[torch.Generator], Seen] = zoo_qwen.video) -> Member:
    return Member(zoo_qwen.qwen(kind), zoo_qwen.image, video, zoo_qwen.extras, mrope=True, renumbers=False)


def glm_member(name: str, modality: str = "image") -> Member:
    shown: dict[str, Any] = dict(image=getattr(zoo_glm, modality), modality=modality, repeats=modality == "image")
    return Member(zoo_glm.glm(name), extras=zoo_glm.extras, mrope=True, renumbers=False, **shown)


def minicpm_member(kind: str, **more: Any) -> Member:
    image, video, along = zoo_minicpm.image, zoo_minicpm.video, zoo_minicpm.ALONG
    return Member(lambda: zoo_minicpm.minicpm(kind), image, video, stage_1=(3, 1), along=along, **more)


FAMILIES: dict[str, Member] = {
    **{
        name: Member(lambda name=name: tiny.build(name), _llava_image(name), stage_1=(13, 4))  # type: ignore[misc]
        for name in ("llava", "llava_mistral", "llava_next")
    },
    "qwen2_5_vl": qwen_member("Qwen2_5_VL"),
    "qwen2_vl": qwen_member("Qwen2VL"),
    "qwen3_vl": qwen_member("Qwen3VL", zoo_qwen.video_with_times),
    "qwen3_vl_moe": qwen_member("Qwen3VLMoe", zoo_qwen.video_with_times),
    "qwen2_5_omni_thinker": Member(
        lambda: zoo_omni.thinker(QWEN_TEXT), zoo_qwen.image, zoo_qwen.omni_video, mrope=True, renumbers=False
    ),
    **{name: glm_member(name) for name in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")},
    "glm4v_video": glm_member("glm4v", "video"),
    "qwen3_5": qwen_member("Qwen3_5", zoo_qwen.video_with_times),
    "qwen3_5_moe": qwen_member("Qwen3_5Moe", zoo_qwen.video_with_times),
    "video_llava": Member(
        zoo_fixed.video_llava, zoo_fixed.video_llava_image, zoo_fixed.video_llava_video, stage_1=(13, 4)
    ),
    "llava_onevision": Member(
        zoo_fixed.llava_onevision, zoo_fixed.onevision_image, zoo_fixed.onevision_video, stage_1=(5, 2)
    ),
    "internvl": Member(zoo_fixed.internvl, zoo_fixed.internvl_image),
    "gemma3": Member(zoo_fixed.gemma3, zoo_fixed.gemma3_image, extras=zoo_fixed.gemma3_extras, renumbers=False),
    "smolvlm": Member(zoo_fixed.smolvlm, zoo_fixed.smolvlm_image),
    "idefics3": Member(lambda: zoo_fixed.smolvlm("Idefics3"), zoo_fixed.smolvlm_image),
    "aya_vision": Member(zoo_tiles.aya_vision, zoo_tiles.aya_vision_image),
    "cohere2_vision": Member(lambda: zoo_tiles.aya_vision("Cohere2Vision"), zoo_tiles.aya_vision_image),
    "vipllava": Member(zoo_fixed.vipllava, zoo_fixed.vipllava_image, stage_1=(13, 4)),
    "llava_next_video": Member(
        zoo_fixed.llava_next_video,
        zoo_fixed.llava_next_video_image,
        zoo_fixed.llava_next_video_video,
        stage_1=(13, 4),
    ),
    "mistral3": Member(zoo_pixtral.mistral3, zoo_pixtral.image, stage_1=(5, 2)),
    "ovis2": Member(zoo_tiles.ovis2, zoo_tiles.ovis2_image),
    "video_llama_3": Member(
        zoo_pixtral.video_llama_3, zoo_pixtral.video_llama_3_image, zoo_pixtral.video_llama_3_video, stage_1=(5, 2)
    ),
    "minicpmv4_6": minicpm_member("MiniCPMV4_6"),
    "minicpmv4_7": minicpm_member("MiniCPMV4_7", extras=zoo_qwen.extras, mrope=True, renumbers=False),
    "paddleocr_vl": Member(
        zoo_siglip.paddleocr_vl, zoo_siglip.paddleocr_vl_image, extras=zoo_qwen.extras, mrope=True, renumbers=False
    ),
    "lfm2_vl": Member(zoo_siglip.lfm2_vl, zoo_siglip.lfm2_vl_image),
    "deepseek_vl": Member(zoo_siglip.deepseek_vl, zoo_siglip.deepseek_vl_image, stage_1=(13, 4)),
    "deepseek_vl_hybrid": Member(
        lambda: zoo_siglip.deepseek_vl("DeepseekVLHybrid"), zoo_siglip.deepseek_vl_hybrid_image, stage_1=(13, 4)
    ),
    "janus": Member(lambda: zoo_siglip.deepseek_vl("Janus"), zoo_siglip.deepseek_vl_image, stage_1=(13, 4)),
}
