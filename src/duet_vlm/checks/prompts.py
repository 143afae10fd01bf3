"""Prompts with drawn pictures, made by the model's own processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..inputs.prompts import prompt, special_tokens

if TYPE_CHECKING:
    from transformers import ProcessorMixin

# (seed, width and height in pixels) of a picture, or None for text alone; and a question
ROWS: tuple[tuple[tuple[int, int, int] | None, str], ...] = (
    ((1, 224, 224), "What color is the star?"),
    ((2, 336, 224), "How many circles are there? Is the square on the left, and what number is on the heart?"),
    (None, "How many circles are there?"),
)


def picture(seed: int, width: int, height: int) -> Any:
    """A drawn scene of shapes and digits as an RGB picture; equal arguments give equal pictures."""
    import numpy as np
    from PIL import Image

    from ..demo.scenes import make_scene

    return Image.fromarray(make_scene(np.random.default_rng(seed)).image).resize((width, height))


def rows(model: Any, processor: ProcessorMixin) -> list[dict[str, Tensor]]:
    """The processor's tensors of each of `ROWS` by itself, on the model's device and in its dtype."""
    made = []
    for drawn, question in ROWS:
        media = {} if drawn is None else {"images": picture(*drawn)}
        text = prompt(processor, question, None if media else [])
        made.append(processor(**media, text=text, return_tensors="pt", **special_tokens(processor)))
    return [{name: _placed(x, model) for name, x in row.items() if isinstance(x, Tensor)} for row in made]


def together(singles: list[dict[str, Tensor]], padding_id: int, pixels_along: int = 0) -> dict[str, Tensor]:
    """Rows as one batch, padded on the left. Pictures stand one after the other; smaller ones get empty crops.

    Args:
        pixels_along: the axis of pixels on which they do, `pixels_along` of the model's family.
    """
    lengths = [row["input_ids"].shape[1] for row in singles]
    batch = {}
    for name in dict.fromkeys(name for row in singles for name in row):
        if all(_is_per_token(name, row) for row in singles if name in row):
            fill = padding_id if name == "input_ids" else 0
            ids = [row.get(name, torch.zeros_like(row["input_ids"])) for row in singles]
            batch[name] = torch.cat([pad(x, (max(lengths) - x.shape[1], 0), value=fill) for x in ids])
            continue
        parts = [row[name] for row in singles if name in row]
        if pixels_along and parts[0].is_floating_point():
            batch[name] = torch.cat(parts, pixels_along)
            continue
        largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        batch[name] = torch.cat([_enlarged(part, largest) for part in parts])
    return batch


def longer(row: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """A prompt with text tokens (n,) behind it."""
    out = dict(row)
    for name, value in row.items():
        if _is_per_token(name, row):
            more = {"input_ids": tokens[None], "attention_mask": torch.ones_like(tokens)[None]}
            out[name] = torch.cat([value, more.get(name, torch.zeros_like(tokens)[None]).to(value)], 1)
    return out


def _is_per_token(name: str, row: dict[str, Tensor]) -> bool:
    return name == "input_ids" or (name.endswith(("_mask", "_ids")) and row[name].shape == row["input_ids"].shape)


def _placed(x: Tensor, model: Any) -> Tensor:
    return x.to(model.device, model.dtype) if x.is_floating_point() else x.to(model.device)


def _enlarged(x: Tensor, sizes: list[int]) -> Tensor:
    widths = [
        width for have, want in zip(reversed(x.shape[1:]), reversed(sizes), strict=True) for width in (0, want - have)
    ]
    return pad(x, widths) if any(widths) else x
