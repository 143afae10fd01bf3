"""The work a benchmark times: one prompt per row with one image, through the steps that `generate` takes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .budget import DecoderShape
from .config import DuetConfig
from .costs import ImageShape, largest_grid
from .families import encoding
from .host import cache_argument


class OneWordPerToken:
    """Stands in for a tokenizer where weights are random: every third id is a noun, the others are stop words.

    So about a third of the text after the image is salient, as in typical questions, and the ranking works on as many
    query tokens as it would.
    """

    all_special_ids = (0, 1, 2)

    def decode(self, ids: Any, **_: Any) -> str:
        ids = [ids] if isinstance(ids, int) else list(ids)
        return "".join(" cat" if i % 3 == 0 else " the" for i in ids)


class Workload:
    """Rows of text, an image and text again, with random pixels and words.

    Args:
        model: a supported model.
        batch_size: rows, one image each (LLaVA-NeXT: the largest AnyRes grid, all its crops).
        text_tokens: text tokens per row, a few of them before the image.
    """

    def __init__(self, model: Any, batch_size: int, text_tokens: int):
        self.model, self.batch_size, self.text_tokens = model, batch_size, text_tokens
        self.core = model.base_model
        config, device = model.config, model.device
        generator = torch.Generator().manual_seed(0)
        side = config.vision_config.image_size
        self.image, self.encoder_inputs = ImageShape.of(config), {}
        shape: tuple[int, ...] = (batch_size, 3, side, side)
        if self.image.crops > 1:
            shape = (batch_size, self.image.crops, 3, side, side)
            self.encoder_inputs["image_sizes"] = torch.tensor([largest_grid(config)] * batch_size, device=device)
        self.encoder_inputs["pixel_values"] = torch.randn(shape, generator=generator).to(device, model.dtype)
        before = min(5, text_tokens // 4)
        words = torch.randint(3, config.image_token_id, (batch_size, text_tokens), generator=generator)
        image = torch.full((batch_size, self.image.visual_tokens), config.image_token_id)
        self.ids = torch.cat([words[:, :before], image, words[:, before:]], dim=1).to(device)

    @torch.no_grad()
    def encode(self) -> Any:
        """Tower, stage 1 where it is on, projector: what `generate` does first."""
        with encoding.for_engine():  # as inside generate
            return self.core.get_image_features(**self.encoder_inputs, return_dict=True)

    def prefill(self, features: Any) -> DynamicCache:
        """The prompt with its encoded images through the language model; logits of the last token only."""
        cache = DynamicCache(config=self.model.config.get_text_config())
        self._forward(self.ids, cache, mm_encoder_outputs={"image": copy.copy(features)})
        return cache

    def step(self, cache: DynamicCache) -> None:
        """Decode one token more."""
        self._forward(self.ids[:, :1], cache)

    @torch.no_grad()
    def _forward(self, ids: Tensor, cache: DynamicCache, **inputs: Any) -> None:
        past, n = cache.get_seq_length(), ids.shape[1]
        positions = torch.arange(past, past + n, device=ids.device)[None].expand(len(ids), -1)
        mask = torch.ones(len(ids), past + n, dtype=torch.long, device=ids.device)
        self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1,
            **cache_argument(type(self.model).forward, cache), **inputs,
        )  # fmt: skip

    def tokens_per_layer(self, config: DuetConfig) -> list[int]:
        """Visual tokens of one row in every decoder layer, as METHOD counts them."""
        return self.image.tokens_per_layer(config, self.model.config.get_text_config().num_hidden_layers)

    def flops(self, config: DuetConfig) -> int:
        """Ideal prefill of one row: decoder layers and one row of logits; neither stage's own work is in it."""
        counts = [n + self.text_tokens for n in self.tokens_per_layer(config)]
        return DecoderShape.of(self.model.config).prefill_flops(counts)

    def kv_bytes(self, config: DuetConfig) -> int:
        """The schedule's keys and values of the prompt, all rows."""
        shape = DecoderShape.of(self.model.config, self.model.dtype.itemsize)
        counts = self.tokens_per_layer(config)
        return self.batch_size * sum(shape.layer_kv_bytes(n + self.text_tokens) for n in counts)


def stored_bytes(cache: DynamicCache) -> int:
    """Keys and values that a cache holds."""
    total = 0
    for layer in cache.layers:
        keys, values = layer.keys, layer.values  # type: ignore[union-attr]
        total += keys.numel() * keys.element_size() + values.numel() * values.element_size()  # type: ignore[union-attr]
    return total


def narrow(config: Any) -> Any:
    """The same depth, images and prompts at almost no width, where a layer costs what Python costs."""
    config = copy.deepcopy(config)
    vision, text = config.vision_config, config.get_text_config()
    vision.hidden_size, vision.intermediate_size, vision.num_attention_heads = 16, 16, 1
    vision.num_hidden_layers = min(3, vision.num_hidden_layers)
    text.hidden_size, text.intermediate_size, text.vocab_size = 16, 16, 300
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 1, 1, 16
    config.image_token_id = text.vocab_size - 1
    return config
