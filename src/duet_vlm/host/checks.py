"""What is refused of the host, transformers: a version, a decoder, attention or a call that the engine cannot serve.

`NEEDS` lists what the engine relies on, each with a check: `apply` refuses a host that lacks one, and a test of that
name tells which.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache as remembered
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AttentionInterface, PreTrainedModel, cache_utils
from transformers.generation import GenerationMixin

from ..errors import DuetError
from ..version import __version__
from .names import (
    CACHE_NAMES,
    LAYER_NAMES,
    arguments,
    attends,
    attention_kind,
    decoder_of,
    device_of,
    linear_of,
    scales_by_positions,
    takes,
)

# an older transformers, which serves tensors alone, lacks the last
_KEPT = ("DynamicLayer", "DynamicSlidingWindowLayer", "LinearAttentionLayer", "DummyLayer")
KEPT = tuple(getattr(cache_utils, name) for name in _KEPT if hasattr(cache_utils, name))
OLDEST = (5, 23)  # of transformers, for the engine; what needs tensors only works with older ones


def check_chunks(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], images: bool) -> None:
    """Refuse a call of `generate` that hands a prompt over in parts, or with a draft that cannot be told from it.

    `images` says whether any would be compressed.
    """
    told = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    chunk = kwargs.get("prefill_chunk_size", getattr(told, "prefill_chunk_size", None))
    ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
    if images and chunk and ids is not None and ids.shape[1] > chunk:
        raise DuetError(
            f"prefill_chunk_size {chunk} cuts a prompt of {ids.shape[1]} tokens into parts, and its images are "
            "compressed as a whole: leave out prefill_chunk_size."
        )
    draft = kwargs.get("assistant_model")
    if images and draft is not None and takes(draft, "shared_kv_states"):
        raise DuetError(
            f"{type(draft).__name__} drafts from keys and values of the whole prompt, and some go: leave "
            "out assistant_model."
        )
    drafts = draft is not None or kwargs.get("prompt_lookup_num_tokens")
    if images and drafts and not takes(model, "logits_to_keep"):
        raise DuetError(
            f"{type(model).__name__} is not told which tokens are drafted, so they would ask for visual tokens: leave "
            "out assistant_model and prompt_lookup_num_tokens."
        )


def check_decoder(model: Any) -> None:
    """Refuse a decoder whose parts are not what the engine hooks.

    Raises:
        DuetError: names the part and both versions.
    """
    decoder = decoder_of(model)
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        raise _unknown(f"{type(decoder).__name__} has no list of layers")
    if not isinstance(getattr(decoder, "rotary_emb", None), nn.Module):
        raise _unknown(f"{type(decoder).__name__} has no rotary_emb")
    if not _is_rope(decoder):
        raise _unknown(f"{type(decoder.rotary_emb).__name__} gives neither cosines and sines nor complex numbers")
    for layer in decoder.layers:
        kind, known = type(layer).__name__, arguments(type(layer))
        if next(iter(list(known)[1:]), None) != "hidden_states":
            raise _unknown(f"the first argument of {kind}.forward is not hidden_states")
        for name in LAYER_NAMES:
            if name not in known:
                raise _unknown(f"{kind}.forward takes no {name}")
        if not any(name in known for name in CACHE_NAMES):
            raise _unknown(f"{kind}.forward takes neither {' nor '.join(CACHE_NAMES)}")
        if not attends(layer) and _is_linear(layer):
            continue
        attention = getattr(layer, "self_attn", None)
        if not hasattr(attention, "layer_idx") or not hasattr(attention, "config"):
            raise _unknown(f"{kind} has no self_attn that knows its layer_idx and config")
    for stored in cache_utils.DynamicCache(config=decoder.config).layers:
        if type(stored) not in KEPT:
            raise _unknown(f"{type(decoder).__name__} keeps a {type(stored).__name__}")
    if not any(attends(layer) for layer in decoder.layers):
        raise _unknown(f"no layer of {type(decoder).__name__} has attention")


def _is_linear(layer: nn.Module) -> bool:
    """Tell whether a layer is linear, knows its number and leaves out what a mask hides.

    Raises:
        DuetError: what a mask hides becomes a bias, which is not nothing.
    """
    linear = linear_of(layer)
    entrance = getattr(linear, "in_proj", None)
    if isinstance(linear, nn.Module) and getattr(entrance, "bias", None) is not None:
        raise DuetError(
            f"the {type(linear).__name__} of this model adds a bias to tokens that are masked, so they would not be as "
            "if they were gone: use a model whose convolutions have no bias (conv_bias=False)."
        )
    return hasattr(linear, "layer_idx") and "attention_mask" in arguments(type(linear))


@torch.no_grad()
def _is_rope(decoder: Any) -> bool:
    """Tell whether rotary embeddings are cosines and sines, or complex; True as well where only a call can tell."""
    place = torch.zeros(1, 1, dtype=torch.long, device=device_of(decoder, torch.device("cpu")))
    try:
        rope = decoder.rotary_emb(place[..., None].float(), place)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return True
    return rope.is_complex() if isinstance(rope, torch.Tensor) else isinstance(rope, tuple) and len(rope) == 2


def check_attention(decoder: Any, renumbers: bool) -> None:
    """Refuse attention whose masks cannot be cut to the tokens that are kept, or that misreads their positions."""
    kind = attention_kind(decoder)
    if "flash" in kind and not renumbers and scales_by_positions(decoder):
        raise DuetError(
            f"positions 'keep' leave gaps, which attention {kind!r} of a {decoder.config.model_type} takes for packed "
            "sequences: set positions to 'renumber', or attn_implementation to 'sdpa'."
        )
    if kind == "flex_attention" or kind.startswith("paged"):
        raise DuetError(
            f"attention {kind!r} hides its masks from compression: set attn_implementation to 'sdpa', 'eager' or "
            "'flash_attention_2'."
        )


def _unknown(what: str) -> DuetError:
    return DuetError(
        f"{what}, so duet-vlm {__version__} does not know how to compress it with transformers "
        f"{transformers.__version__}: update duet-vlm, or use another model or version."
    )


def _signature(function: Any, *names: str) -> bool:
    return list(inspect.signature(function).parameters)[1 : 1 + len(names)] == list(names)


def _llava_next() -> Any:
    return transformers.models.llava_next.modeling_llava_next


NEEDS: dict[str, Callable[[], bool]] = {
    "cache_utils.Cache.layers": lambda: "layers" in inspect.signature(cache_utils.Cache.__init__).parameters,
    "cache_utils.Cache.get_seq_length": lambda: hasattr(cache_utils.Cache, "get_seq_length"),
    "DynamicLayer.update(key_states, value_states)": lambda: _signature(
        cache_utils.DynamicLayer.update, "key_states", "value_states"
    ),
    "DynamicLayer.lazy_initialization(key_states, value_states)": lambda: _signature(
        cache_utils.DynamicLayer.lazy_initialization, "key_states", "value_states"
    ),
    "DynamicLayer.get_mask_sizes(query_length)": lambda: _signature(
        cache_utils.DynamicLayer.get_mask_sizes, "query_length"
    ),
    "DynamicLayer.crop(tokens_to_remove)": lambda: _signature(cache_utils.DynamicLayer.crop, "tokens_to_remove"),
    **{
        f"DynamicLayer.{name}": lambda name=name: callable(getattr(cache_utils.DynamicLayer, name, None))  # type: ignore[misc]
        for name in ("get_seq_length", "reset", "reorder_cache", "batch_repeat_interleave", "batch_select_indices")
    },
    "DummyLayer": lambda: not issubclass(cache_utils.DummyLayer, cache_utils.DynamicLayer),
    "DynamicSlidingWindowLayer": lambda: issubclass(cache_utils.DynamicSlidingWindowLayer, cache_utils.DynamicLayer),
    "LinearAttentionLayer.has_previous_state": lambda: (
        "has_previous_state" in vars(cache_utils.LinearAttentionLayer())
        and not issubclass(cache_utils.LinearAttentionLayer, cache_utils.DynamicLayer)
    ),
    "AttentionInterface.register": lambda: callable(getattr(AttentionInterface, "register", None)),
    "PreTrainedModel.base_model": lambda: isinstance(getattr(PreTrainedModel, "base_model", None), property),
    "PreTrainedModel.get_decoder": lambda: callable(getattr(PreTrainedModel, "get_decoder", None)),
    "PretrainedConfig._attn_implementation": lambda: isinstance(
        getattr(transformers.PreTrainedConfig, "_attn_implementation", None), property
    ),
    "llava_next.get_anyres_image_grid_shape(image_size, grid_pinpoints, patch_size)": lambda: (
        list(inspect.signature(_llava_next().get_anyres_image_grid_shape).parameters)
        == ["image_size", "grid_pinpoints", "patch_size"]
    ),
    "llava_next.unpad_image(tensor, original_size)": lambda: (
        list(inspect.signature(_llava_next().unpad_image).parameters) == ["tensor", "original_size"]
    ),
    "GenerationMixin.generate": lambda: callable(getattr(GenerationMixin, "generate", None)),
    "mm_encoder_outputs": lambda: (
        "mm_encoder_outputs" in inspect.signature(transformers.LlavaForConditionalGeneration.forward).parameters
    ),
}


def missing() -> list[str]:
    """List what the installed transformers lacks of `NEEDS`."""
    return [name for name, there in NEEDS.items() if not _holds(there)]


def _holds(there: Callable[[], bool]) -> bool:
    try:
        return bool(there())
    except (AttributeError, TypeError, ValueError):
        return False


@remembered
def check_host() -> None:
    """Refuse a transformers that is too old, or that is not what this package knows.

    Raises:
        DuetError: names both versions.
    """
    installed = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if installed < OLDEST:
        raise DuetError(
            f"apply of duet-vlm {__version__} needs transformers {OLDEST[0]}.{OLDEST[1]} or newer, and "
            f"{transformers.__version__} is installed: update it with pip install -U transformers."
        )
    gone = missing()
    if gone:
        raise _unknown(f"{gone[0]} is not there")
