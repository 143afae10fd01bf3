"""The rows of the zoo: a family is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tiny
import torch
import zoo_audio
import zoo_fixed
import zoo_gemma4
import zoo_glm
import zoo_llama4
import zoo_minicpm
import zoo_omni
import zoo_omni_moe
import zoo_pixtral
import zoo_qwen
import zoo_siglip
import zoo_stage_2
import zoo_tiles
from torch import Tensor
from zoo_qwen import IMAGE, QWEN_TEXT

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
        stage_1: settings of stage 1 that fit its small images; None where it sees none.
        merging: "duet", or a method of stage 1 that takes its place where no attention scores.
        renumbers: whether positions may be renumbered.
        more: settings that every config of its tests has besides.
        repeats: whether stock repeats what was encoded for beams and several sequences; elsewhere it raises.
        along: the axis on which tensors of several images follow each other, where it is not the first.
    """

    make: Callable[[], Any]
    image: Callable[[torch.Generator], Seen] | None = None
    video: Callable[[torch.Generator], Seen] | None = None
    extras: Callable[[dict[str, Any]], dict[str, Tensor]] | None = None
    mrope: bool = False
    stage_1: tuple[int, int] | None = (7, 3)
    merging: str = "duet"
    renumbers: bool = True
    modality: str = "image"
    more: dict[str, Any] = field(default_factory=dict)
    repeats: bool = True
    along: dict[str, int] = field(default_factory=dict)


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


def gemma4_member(kind: str, spread: int = 1, **changes: Any) -> Member:
    make = zoo_gemma4.unified if kind == "unified" else partial(zoo_gemma4.gemma4, kind)
    shown = [partial(maker, spread=spread) for maker in (zoo_gemma4.image, zoo_gemma4.video)]
    return Member(make, *shown, extras=zoo_gemma4.extras, renumbers=False, stage_1=(5, 2), **changes)


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
    "qwen3_omni_moe_thinker": Member(
        lambda: zoo_omni_moe.thinker(QWEN_TEXT), zoo_qwen.image, zoo_qwen.omni_video, mrope=True, renumbers=False
    ),
    "omni_with_sound": Member(
        lambda: zoo_omni.thinker(QWEN_TEXT),
        zoo_qwen.image,
        zoo_omni.video_with_sound,
        zoo_omni.extras,
        mrope=True,
        renumbers=False,
        more={"audio_keep": 0.5},
    ),
    "qwen2_audio": Member(zoo_audio.qwen2_audio, zoo_audio.qwen2_audio_sound, stage_1=None, more={"audio_keep": 0.5}),
    "voxtral": Member(zoo_audio.voxtral, zoo_audio.voxtral_sound, stage_1=None, more={"audio_keep": 0.5}),
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
    **{name: gemma4_member(name.removeprefix("gemma4_")) for name in ("gemma4", "gemma4_shared", "gemma4_moe")},
    "gemma4_unified": gemma4_member("unified", spread=zoo_gemma4.SIDE, merging="pool"),
    "paligemma": Member(zoo_fixed.paligemma, zoo_fixed.paligemma_image, extras=zoo_fixed.paligemma_extras),
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
    "ministral3": Member(zoo_pixtral.ministral3, zoo_pixtral.image, extras=zoo_pixtral.numbered, stage_1=(5, 2)),
    "llama4": Member(zoo_llama4.llama4, zoo_llama4.image, repeats=False),
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

# families that have no stage 1: `test_stage_2_alone.py` holds their matrix
STAGE_2_ALONE: dict[str, Member] = {
    "granite4_vision": Member(zoo_stage_2.granite4_vision, zoo_stage_2.granite4_vision_image),
    "got_ocr2": Member(zoo_stage_2.got_ocr2, zoo_stage_2.got_ocr2_image),
    "deepseek_ocr2": Member(zoo_stage_2.deepseek_ocr2, zoo_stage_2.deepseek_ocr2_image),
}
SEEING = tuple(name for name, member in FAMILIES.items() if member.stage_1 is not None)  # the others only hear
