"""The host, transformers: what it calls things (`names`) and what is refused of it (`checks`).

Nothing else in this package spells a private name of transformers. `attention` sees queries and keys of its modules,
`refs` wraps their methods.
"""

from .checks import (
    NEEDS,
    OLDEST,
    check_attention,
    check_chunks,
    check_decoder,
    check_host,
    missing,
)
from .names import (
    CACHE_NAMES,
    LAYER_NAMES,
    PACKED,
    argument_names,
    attention_kind,
    cache_argument,
    cache_of,
    decoder_of,
    device_of,
    hooks_of,
    image_tokens,
    is_replica,
    named_arguments,
    output_cache,
    renumbers,
    takes,
    tiles_of,
)

__all__ = [
    "CACHE_NAMES",
    "LAYER_NAMES",
    "NEEDS",
    "OLDEST",
    "PACKED",
    "argument_names",
    "attention_kind",
    "cache_argument",
    "cache_of",
    "check_attention",
    "check_chunks",
    "check_decoder",
    "check_host",
    "decoder_of",
    "device_of",
    "hooks_of",
    "image_tokens",
    "is_replica",
    "missing",
    "named_arguments",
    "output_cache",
    "renumbers",
    "takes",
    "tiles_of",
]
