"""Every family as a tiny random model of a stock class, and prompts for it: text, images and videos, padded or not.

A prompt is a tuple of ints (so many words) and "i" (an image) and "v" (a video): (5, "i", 9).
"""

from __future__ import annotations

from typing import Any

import tiny
import torch
import zoo_omni
import zoo_qwen
from torch import Tensor
from zoo_members import FAMILIES, SEEING, STAGE_2_ALONE, Member, Seen

__all__ = ["FAMILIES", "SEEING", "STAGE_2_ALONE", "Member", "Seen"]

LAYERS = zoo_qwen.LAYERS
PAD, WORDS = 0, (3, 90)  # the ids that words are drawn from
IMAGE, VIDEO, START, END = 98, 97, 96, 95
Rows = tuple[tuple[int | str, ...], ...]


def member(family: str) -> Member:
    return FAMILIES[family] if family in FAMILIES else STAGE_2_ALONE[family]


def build(family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model with large random weights, so that attention is far from uniform."""
    torch.manual_seed(seed)
    model = member(family).make().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():  # `model.to` makes complex ones real
            tensor.data = tensor.data.to(dtype)
    model.set_attn_implementation(attention)
    tiny.randomize(model, torch.Generator().manual_seed(seed))
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model


def inputs(family: str, rows: Rows, padding: str = "left", seed: int = 1, first: int = 0) -> dict[str, Any]:
    """A batch; row r is the same whatever stands beside it, given the same `seed` and `first` + r."""
    known, sequences, seen = member(family), [], []
    for number, row in enumerate(rows, start=first):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        ids: list[int] = []
        for part in row:
            if isinstance(part, int):
                ids += torch.randint(*WORDS, (part,), generator=generator).tolist()
                continue
            maker = known.image if part == "i" else known.video
            assert maker is not None, f"{family} takes no {part}"
            places, tensors = maker(generator)
            ids += places
            seen.append(tensors)
        sequences.append(torch.tensor(ids))
    batch: dict[str, Any] = tiny.stack(sequences, padding)
    for key in dict.fromkeys(key for tensors in seen for key in tensors):
        batch[key] = torch.cat([tensors[key] for tensors in seen if key in tensors], known.along.get(key, 0))
    return extended(family, batch)


def extended(family: str, batch: dict[str, Any], tokens: Tensor | None = None) -> dict[str, Any]:
    """The batch with more text behind it, and what its processor makes of the ids."""
    batch = dict(batch)
    if tokens is not None:
        batch["input_ids"] = torch.cat([batch["input_ids"], tokens], 1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
        if not member(family).mrope:
            # stock generate numbers the tokens of a padded row from its first real one
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    extras = member(family).extras
    return batch | (extras(batch) if extras else {})


def visual(batch: dict[str, Any]) -> Tensor:
    """(B, S) bool."""
    return (batch["input_ids"] == IMAGE) | (batch["input_ids"] == VIDEO)


def decoder(model: Any) -> Any:
    """The stack of a model's decoder layers; some hand over their own head with it."""
    found = model.base_model.get_decoder()
    return found if hasattr(found, "layers") else found.model


def audio(batch: dict[str, Any]) -> Tensor:
    """(B, S) bool."""
    return batch["input_ids"] == zoo_omni.AUDIO


def media(batch: dict[str, Any]) -> Tensor:
    """(B, S) bool, what may be dropped of a batch with sound."""
    return visual(batch) | audio(batch)


def is_hybrid(model: Any) -> bool:
    """Whether some decoder layers hold a state instead of keys and values."""
    return any(not hasattr(layer, "self_attn") for layer in decoder(model).layers)


def has_video(family: str) -> bool:
    return member(family).video is not None


def rope_index(model: Any, batch: dict[str, Any]) -> Tensor:
    """(3, B, S) positions of a family whose positions have three axes."""
    wanted = ("image_grid_thw", "video_grid_thw", "target_sizes", "target_sizes_videos", "attention_mask",
              "mm_token_type_ids")  # fmt: skip
    given = {k: batch[k] for k in wanted if k in batch}
    if "video_second_per_grid" in batch:
        given["second_per_grids"] = batch["video_second_per_grid"]
    if "use_audio_in_video" in batch:
        given["use_audio_in_video"] = batch["use_audio_in_video"]
    if "feature_attention_mask" in batch:
        given["audio_seqlens"] = batch["feature_attention_mask"].sum(1)
    positions: Tensor = model.model.get_rope_index(batch["input_ids"], **given)[0]
    return positions
