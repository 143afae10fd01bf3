"""The work a benchmark times: one prompt per row with one image, through the steps that `generate` takes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ..config.decoder_shape import DecoderShape
from ..families import audience, family_of
from ..families.image_shape import ImageShape
from ..families.random_images import pixels_of, prompts_of, usual_grid
from ..host import cache_argument, decoder_of, layers_with_keys
from ..presets import DuetConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
        batch_size: rows, one image each (AnyRes: the largest grid, all its crops).
        text_tokens: text tokens per row, a few of them before the image.
        grid: rows and columns of the image's patches where a model takes any size; `usual_grid` if not given.
        tiles: how many tiles the image is cut into, for models that do that; one if not given.
        size: (height, width) of the image in pixels, for AnyRes models; their largest grid if not given.

    Attributes:
        tower, layers: of the model.
    """

    def __init__(
        self, model: Any, batch_size: int, text_tokens: int, grid: tuple[int, ...] | None = None,
        tiles: int | None = None, size: tuple[int, int] | None = None,
    ):  # fmt: skip
        self.model, self.batch_size, self.text_tokens = model, batch_size, text_tokens
        self.core, config = model.base_model, model.config
        grid = usual_grid(config) if grid is None else grid
        generator = torch.Generator().manual_seed(0)
        self.image = ImageShape.of(config, grid, tiles, size)
        pixels = pixels_of(config, self.image, batch_size, grid, generator)
        pixels = {k: v.to(model.device, model.dtype if v.is_floating_point() else None) for k, v in pixels.items()}
        self.encoder_inputs: dict[str, Tensor] = pixels
        self.ids = prompts_of(config, self.image, batch_size, text_tokens, generator).to(model.device)
        self.family = family_of(config)
        self.told = self.family.extra_inputs(config, self.ids, pixels)

    @property
    def tower(self) -> Any:
        return getattr(self.core, self.family.towers[0])

    @property
    def layers(self) -> Any:
        return decoder_of(self.model).layers

    @torch.no_grad()
    def encode(self) -> Any:
        """Tower, stage 1 where it is on, projector: what `generate` does first."""
        with audience.for_engine():  # as inside generate
            return self.core.get_image_features(**self.encoder_inputs, return_dict=True)

    def prefill(self, features: Any) -> DynamicCache:
        """The prompt with its encoded images through the language model; logits of the last token only."""
        cache = DynamicCache(config=self.model.config.get_text_config())
        self._forward(self.ids, cache, **self.told, mm_encoder_outputs={"image": copy.copy(features)})
        return cache

    def step(self, cache: DynamicCache) -> None:
        """Decode one token more."""
        self._forward(self.ids[:, :1], cache)

    @torch.no_grad()
    def _forward(self, ids: Tensor, cache: DynamicCache, **inputs: Any) -> None:
        past, n = cache.get_seq_length(), ids.shape[1]
        positions = torch.arange(past, past + n, device=ids.device)[None].expand(len(ids), -1)
        if self.family.position_axes == 1:
            inputs["position_ids"] = positions
        elif past:  # of three axes, which the model makes of the prompt
            inputs["position_ids"] = (positions + self.core.rope_deltas).expand(3, -1, -1)
        mask = torch.ones(len(ids), past + n, dtype=torch.long, device=ids.device)
        self.model(
            input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1,
            **cache_argument(type(self.model).forward, cache), **inputs,
        )  # fmt: skip

    def tokens_per_layer(self, config: DuetConfig) -> list[int]:
        """Visual tokens of one row in every decoder layer, counted as in docs/method.md, Budgets."""
        return self.image.tokens_per_layer(config, self.model.config.get_text_config().num_hidden_layers)

    def flops(self, config: DuetConfig) -> int:
        """Ideal prefill of one row: decoder layers and one row of logits; neither stage's own work is in it."""
        counts = [n + self.text_tokens for n in self.tokens_per_layer(config)]
        return DecoderShape.of(self.model.config).prefill_flops(counts)

    def kv_bytes(self, config: DuetConfig) -> int:
        """The schedule's keys and values of the prompt, all rows."""
        shape = DecoderShape.of(self.model.config, self.model.dtype.itemsize)
        counts = self.tokens_per_layer(config)
        tokens = [n + self.text_tokens for n in counts]
        return self.batch_size * sum(shape.layer_kv_bytes(n, i, config.compresses) for i, n in enumerate(tokens))


def stored_bytes(cache: DynamicCache) -> int:
    """Keys and values that a cache holds."""
    parts = [part for layer in layers_with_keys(cache) for part in (layer.keys, layer.values)]
    return sum(part.numel() * part.element_size() for part in parts)


def narrow(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same depth, images and prompts at almost no width, where a layer costs what Python costs."""
    config = copy.deepcopy(config)
    vision, text = config.vision_config, config.get_text_config()
    for name in ("hidden_size", "embed_dim", "out_hidden_size", "intermediate_size", "head_dim", "projection_dim"):
        if hasattr(vision, name):
            setattr(vision, name, 16)
    if hasattr(vision, "pixel_shuffle_ratio"):  # an adapter in the tower takes all patches of a token side by side
        vision.intermediate_size = round(16 / vision.pixel_shuffle_ratio**2)
    if hasattr(config, "hidden_size"):  # some repeat that of their text
        config.hidden_size = 16
    for name in ("num_attention_heads", "num_heads", "num_key_value_heads"):
        if hasattr(vision, name):
            setattr(vision, name, 1)
    layer = getattr(config, "vision_feature_layer", -1)
    if hasattr(vision, "num_hidden_layers") and isinstance(layer, int) and layer >= -3 and layer <= 0:
        vision.num_hidden_layers = min(3, vision.num_hidden_layers)
    if getattr(text, "is_heterogeneous", False):
        text.per_layer_config = {}
    text.hidden_size, text.intermediate_size, text.vocab_size = 16, 16, 300
    if getattr(text, "vocab_size_per_layer_input", None):
        text.vocab_size_per_layer_input = text.vocab_size
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 1, 1, 16
    for name in ("linear_num_key_heads", "linear_num_value_heads"):
        if hasattr(text, name):
            setattr(text, name, 1)
    for name in (
        "linear_key_head_dim", "linear_value_head_dim", "moe_intermediate_size", "hidden_size_per_layer_input",
    ):  # fmt: skip
        if getattr(text, name, None):
            setattr(text, name, 16)
    rope = getattr(text, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        rope["mrope_section"] = [4, 2, 2]  # half of a head
        if "partial_rotary_factor" in rope:
            rope["partial_rotary_factor"] = 1.0
    text.pad_token_id = 0
    if getattr(config, "pad_token_id", None) is not None:
        config.pad_token_id = 0
    config.image_token_id = text.vocab_size - 1
    return config
