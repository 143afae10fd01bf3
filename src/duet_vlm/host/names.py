"""What the host, transformers, calls things: every name, signature and private attribute that the engine relies on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache as remembered
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CACHE_NAMES = ("cache", "past_key_values")  # the newer first: where both are known, the older is an alias
LAYER_NAMES = ("attention_mask", "position_embeddings")  # what a decoder layer is given by keyword
LINEAR = ("linear_attn", "conv")  # what a layer without attention calls what it has instead
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx")  # how packed rows are announced to attention


# ---- the cache ----


def cache_of(kwargs: Mapping[str, Any]) -> Any:
    """The key-value cache among a call's keyword arguments, by whichever name the caller uses; None without one."""
    for name in CACHE_NAMES:
        cache = kwargs.get(name)
        if cache is not None:
            return cache
    return None


def cache_argument(forward: Any, cache: Any) -> dict[str, Any]:
    """A cache as the keyword argument that `forward` calls it by."""
    known = inspect.signature(forward).parameters
    return {next((name for name in CACHE_NAMES if name in known), CACHE_NAMES[0]): cache}


def output_cache(output: Any) -> Any:
    """The cache in a model's or `generate`'s output."""
    for name in CACHE_NAMES:
        if name in output:
            return output[name]
    return None


def layers_with_keys(cache: Any) -> list[Any]:
    """The layers of a cache that hold keys and values; a linear layer holds a state, a borrowing one nothing."""
    return [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]


# ---- calls ----


@remembered
def argument_names(kind: Any) -> tuple[str, ...] | None:
    """Names of a module class's positional arguments, of the first class above it that names them."""
    for one in kind.__mro__:
        if "forward" not in one.__dict__:
            continue
        parameters = list(inspect.signature(one.__dict__["forward"]).parameters.values())[1:]
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return tuple(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
    return None


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a module, positional ones by the names that its forward gives them."""
    if not args:
        return kwargs
    kind: Any = type(module)
    names = argument_names(kind)
    if names is None or len(args) > len(names):
        raise DuetError(
            f"{len(args)} positional arguments came to {type(module).__name__}, whose forward does not name them: "
            "pass them by keyword."
        )
    return dict(zip(names, args, strict=False)) | kwargs


def takes(module: nn.Module, name: str) -> bool:
    """Whether a module's forward has an argument of this name."""
    return name in inspect.signature(type(module).forward).parameters


def device_of(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a module computes: where accelerate was told to, or where its weights are."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):  # several may be chained
        told = getattr(one, "execution_device", None)
        if told is not None:
            return torch.device("cuda", told) if isinstance(told, int) else torch.device(told)
    weight = next(module.parameters(), None)
    return otherwise if weight is None or weight.device.type == "meta" else weight.device


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """The hooks on a module, those before its forward and those behind it, by their numbers; torch's own tables."""
    return module._forward_pre_hooks, module._forward_hooks


# ---- the processor ----


def image_tokens(processor: Any, sizes: list[tuple[int, int]]) -> list[int]:
    """Visual tokens of images of these (height, width), as the processor will write them into a prompt."""
    counts: list[int] = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    return counts


# ---- the model's parts ----


def decoder_of(model: Any) -> Any:
    """The language model inside a model, the stack of decoder layers; some hand over their own head with it."""
    decoder = model.base_model.get_decoder()
    return decoder if hasattr(decoder, "layers") else getattr(decoder, "model", decoder)


def attends(layer: Any) -> bool:
    """Whether a decoder layer has softmax attention, with keys that are stored and weights that can rank."""
    return hasattr(layer, "self_attn")


def linear_of(layer: Any) -> Any:
    """What stands in the place of attention in a linear layer; None where nothing does that is known."""
    return next((getattr(layer, name) for name in LINEAR if hasattr(layer, name)), None)


def linear_layers_of(decoder: Any) -> frozenset[int]:
    """The numbers of the decoder layers that are linear, with a state instead of keys and values."""
    return frozenset(i for i, layer in enumerate(decoder.layers) if not attends(layer))


def borrows(layer: Any) -> bool:
    """Whether a decoder layer has no keys and values, and attends to those of an earlier one (Gemma 4)."""
    return attends(layer) and bool(getattr(layer.self_attn, "is_kv_shared_layer", False))


def attention_type(layer: Any) -> str:
    """The type of a layer's attention, by which a layer that lends keys and values is found."""
    return str(layer.self_attn.layer_type)


def layer_number(layer: Any) -> int:
    """The number of a decoder layer, of either kind."""
    return int((layer.self_attn if attends(layer) else linear_of(layer)).layer_idx)


def attention_kind(module: Any) -> str:
    """The name of the attention implementation of a decoder or of one of its attention modules."""
    return str(module.config._attn_implementation)


def counts_tokens(attention: Any) -> bool:
    """Whether attention scales a query by how many tokens stand before it, which it counts by itself (Llama 4)."""
    return bool(getattr(attention, "attn_temperature_tuning", False)) and not attention.use_rope


def is_replica(module: nn.Module) -> bool:
    """Whether DataParallel made this module for one call."""
    return bool(vars(module).get("_is_replica"))


def tiles_of(config: PreTrainedConfig, size: tuple[int, int], in_row: int | None = None) -> tuple[int, int, int]:
    """Count an AnyRes image's crops beside the base, and its rows and columns of patches; `size` is (height, width).

    Stock code chooses the grid and cuts off what is padding. `in_row` of them are in a row of a crop, if not all.
    """
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    side = config.vision_config.image_size
    in_row = in_row or side // config.vision_config.patch_size
    down, across = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    _, rows, columns = unpad_image(torch.empty(1, down * in_row, across * in_row), size).shape
    return down * across, rows, columns


def arguments(kind: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a module class's forward, by name, `self` among them."""
    return inspect.signature(kind.forward).parameters


def renumbers(decoder: Any) -> bool:
    """Whether the decoder's rotary embeddings are the same for all layers, so that positions can be renumbered."""
    return "layer_type" not in arguments(type(decoder.rotary_emb))


def scales_by_positions(decoder: Any) -> bool:
    """Whether the decoder's attention needs positions beside rotary embeddings, as it scales queries by them."""
    known = (arguments(type(layer.self_attn)).get("position_ids") for layer in decoder.layers if attends(layer))
    return any(positions is not None and positions.default is positions.empty for positions in known)
