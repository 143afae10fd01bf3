"""A processor for the zoo's models: as many words as the text has, and the zoo's own images."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import zoo


class Tokenizer(tiny.Words):
    """Words of the zoo, with what a stock tokenizer tells of its special tokens."""

    all_special_ids = (zoo.PAD, 1, 2, zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END, 94)
    bos_token = chat_template = None
    pad_token_id, eos_token_id = zoo.PAD, 2


class Processor:
    """Called as a stock processor is, with one text and at most one picture."""

    image_processor, chat_template = "drawn by the zoo", None

    def __init__(self, family: str, dtype: torch.dtype = torch.float32):
        self.family, self.tokenizer = family, Tokenizer()

    def __call__(self, text: str, images: Any = None, return_tensors: str = "pt", **_: Any) -> dict[str, Any]:
        words = len(text.split())
        row: tuple[int | str, ...] = (words,) if images is None else (3, "i", words)
        return zoo.inputs(self.family, (row,), first=words)
