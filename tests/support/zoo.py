"""Every family as a tiny random model of a stock class, and prompts for it: text, images and videos, padded or not.

A prompt is a tuple of ints (so many words) and "i" (an image) and "v" (a video): (5, "i", 9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tiny
import torch
import transformers
import zoo_fixed
import zoo_glm
import zoo_omni
import zoo_pixtral
import zoo_tiles
from torch import Tensor

PAD, WORDS = 0, (3, 90)  # the ids that words are drawn from
LAYERS = 5
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
        batch[key] = torch.cat([tensors[key] for tensors in seen if key in tensors])
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
    wanted = ("image_grid_thw", "video_grid_thw", "attention_mask", "mm_token_type_ids")
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


# ---- Qwen ----

QWEN_TEXT: dict[str, Any] = dict(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=PAD, max_position_embeddings=512,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
)  # fmt: skip
HYBRIDS, ATTEND = ("qwen3_5", "qwen3_5_moe"), (0, 3)
# attention at layer 0, so that every setting of the matrix can be ranked; linear layers side by side and at the end
HYBRID: dict[str, Any] = dict(
    layer_types=["full_attention" if i in ATTEND else "linear_attention" for i in range(LAYERS)], head_dim=16,
    linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
                     "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    rms_norm_eps=1e-3,
)  # fmt: skip
EXPERTS = dict(moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
QWEN_IDS: dict[str, Any] = dict(
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END
)


def _qwen(kind: str) -> Callable[[], Any]:
    vision: dict[str, Any] = dict(depth=3, num_heads=4, in_channels=3, patch_size=4, spatial_merge_size=2,
                                  temporal_patch_size=2)  # fmt: skip
    text = dict(QWEN_TEXT)
    if kind == "Qwen2_5_VL":
        vision |= dict(hidden_size=32, intermediate_size=64, window_size=16, fullatt_block_indexes=[1],
                       out_hidden_size=32)  # fmt: skip
    elif kind.startswith("Qwen3_5"):
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=32, num_position_embeddings=64)
        text |= HYBRID | (EXPERTS if kind == "Qwen3_5Moe" else {})
    elif kind == "Qwen2VL":
        vision |= dict(embed_dim=32, hidden_size=32, mlp_ratio=2)
    else:
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=32, num_position_embeddings=64,
                       deepstack_visual_indexes=[0, 1])  # fmt: skip
        text |= dict(head_dim=8)
    if kind == "Qwen3VLMoe":
        text |= dict(moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)

    def make() -> Any:
        config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **QWEN_IDS)
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        if kind == "Qwen3VLMoe":
            model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
        for state in (module for module in model.modules() if hasattr(module, "A_log")):
            # slow decay: a state remembers the whole prompt, so what should not be in it shows
            state.A_log.data = torch.linspace(0.02, 0.3, len(state.A_log)).log()
        return model

    return make


def _qwen_grid(generator: torch.Generator, frames: int) -> tuple[Tensor, Tensor]:
    sizes = [(8, 8), (4, 12), (12, 8), (8, 6)]
    rows, columns = sizes[int(torch.randint(len(sizes), (1,), generator=generator))]
    pixels = torch.randn(frames * rows * columns, 3 * 2 * 4 * 4, generator=generator)
    return pixels, torch.tensor([[frames, rows, columns]])


def _qwen_image(generator: torch.Generator) -> Seen:
    pixels, grid = _qwen_grid(generator, 1)
    ids = [START, *[IMAGE] * (int(grid.prod()) // 4), END]
    return ids, {"pixel_values": pixels, "image_grid_thw": grid}


def _qwen_video(generator: torch.Generator) -> Seen:
    pixels, grid = _qwen_grid(generator, 2 + int(torch.randint(2, (1,), generator=generator)))
    ids = [START, *[VIDEO] * (int(grid.prod()) // 4), END]
    return ids, {"pixel_values_videos": pixels, "video_grid_thw": grid}


def _qwen3_video(generator: torch.Generator) -> Seen:
    # its processor writes a time stamp in front of every frame
    pixels, grid = _qwen_grid(generator, 2 + int(torch.randint(2, (1,), generator=generator)))
    frame = int(grid[0, 1:].prod()) // 4
    ids = [token for number in range(int(grid[0, 0])) for token in (10 + number, START, *[VIDEO] * frame, END)]
    return ids, {"pixel_values_videos": pixels, "video_grid_thw": grid}


def _qwen_extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    ids = batch["input_ids"]
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}


def _qwen_member(kind: str, video: Callable[[torch.Generator], Seen] = _qwen_video) -> Member:
    return Member(_qwen(kind), _qwen_image, video, _qwen_extras, mrope=True, renumbers=False)


def _omni_video(generator: torch.Generator) -> Seen:
    ids, tensors = _qwen_video(generator)
    return ids, tensors | {"video_second_per_grid": torch.tensor([0.5])}


def glm_member(name: str, modality: str = "image") -> Member:
    shown: dict[str, Any] = dict(image=getattr(zoo_glm, modality), modality=modality, repeats=modality == "image")
    return Member(zoo_glm.glm(name), extras=zoo_glm.extras, mrope=True, renumbers=False, **shown)


FAMILIES: dict[str, Member] = {
    **{
        name: Member(lambda name=name: tiny.build(name), _llava_image(name), stage_1=(13, 4))  # type: ignore[misc]
        for name in ("llava", "llava_mistral", "llava_next")
    },
    "qwen2_5_vl": _qwen_member("Qwen2_5_VL"),
    "qwen2_vl": _qwen_member("Qwen2VL"),
    "qwen3_vl": _qwen_member("Qwen3VL", _qwen3_video),
    "qwen3_vl_moe": _qwen_member("Qwen3VLMoe", _qwen3_video),
    "qwen2_5_omni_thinker": Member(
        lambda: zoo_omni.thinker(QWEN_TEXT), _qwen_image, _omni_video, mrope=True, renumbers=False
    ),
    **{name: glm_member(name) for name in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")},
    "glm4v_video": glm_member("glm4v", "video"),
    "qwen3_5": _qwen_member("Qwen3_5", _qwen3_video),
    "qwen3_5_moe": _qwen_member("Qwen3_5Moe", _qwen3_video),
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
}
