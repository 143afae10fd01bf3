"""What a prompt brings: its pixels encoded, its visual tokens found and numbered, its query tokens chosen."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .config import DuetConfig
from .errors import DuetError
from .families import Family, visual_token_ids
from .forward_pass import ForwardPass
from .merging import Merge
from .proportional import log_sizes, without_sizes
from .queries import IGNORED, has_answer, query_places
from .tokens import number_runs, number_spans

if TYPE_CHECKING:
    from .engine import Duet

# modality -> the names that its pixels come by
PIXELS = {"image": ("pixel_values", "pixel_values_images"), "video": ("pixel_values_videos",)}


def has_pixels(kwargs: dict[str, Any]) -> bool:
    """Whether a call of the core model brings images or videos that are not encoded yet."""
    return any(kwargs.get(name) is not None for names in PIXELS.values() for name in names)


def encode(family: Family, core: Any, kwargs: dict[str, Any], config: DuetConfig) -> dict[str, Any]:
    """Encode the pixels here, as `generate` does, so that nothing of ours reaches the vision tower.

    Args:
        kwargs: of the core model's call.
        config: its `merges` and `proportional`.

    Returns:
        The same with `mm_encoder_outputs` in the place of pixels.
    """
    outputs, others = dict(kwargs.get("mm_encoder_outputs") or {}), dict(kwargs)
    for modality, names in PIXELS.items():
        if any(kwargs.get(name) is not None for name in names):
            encoder = getattr(core, f"get_{modality}_features")
            wanted = [k for k in inspect.signature(encoder).parameters if k in kwargs]
            outputs[modality] = encoder(**{k: kwargs[k] for k in wanted}, return_dict=True)
        if config.merges and outputs.get(modality) is not None:
            if config.proportional:
                without_sizes(outputs[modality], core.config.get_text_config().hidden_size)
            outputs[modality].pooler_output = family.finish(core, outputs[modality].pooler_output)
        for name in names:
            others.pop(name, None)
    return others | {"mm_encoder_outputs": outputs}


def drafted_labels(ids: Tensor, drafted: int) -> Tensor:
    """(B, S) labels that mark the last `drafted` tokens of ids (B, S) as answers: a draft asks nothing."""
    labels = torch.full_like(ids, IGNORED)
    labels[:, -drafted:] = ids[:, -drafted:]
    return labels


def read(duet: Duet, ids: Tensor, kwargs: dict[str, Any], labels: Tensor | None) -> ForwardPass | None:
    """What is known before the first layer; None where no visual token comes in.

    Args:
        duet: the applied settings.
        ids: (B, S).
        kwargs: of the core model's call, encoded.
        labels: (B, S), or None.

    Raises:
        ValueError: a part of an image, where that can be seen.
    """
    visual, spans = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids)
    merges: list[Merge] = []
    log_s: Tensor | None = None
    for modality, token in visual_token_ids(duet.model_config).items():
        output, there = kwargs["mm_encoder_outputs"].get(modality), ids == token
        if output is None:
            continue
        sizes = [len(f) for f in output.pooler_output]
        if not sizes or int(there.sum()) != sum(sizes):
            return None  # text alone, or a mismatch that stock reports
        for size in sizes:
            if not duet.family.is_whole(duet.model_config, size):
                raise DuetError(
                    f"an image came with {size} visual tokens, which is a part of it: give the whole prompt at "
                    "once (leave out prefill_chunk_size)."
                )
        numbers = number_runs(there) if modality in duet.family.runs else number_spans(there, sizes)
        spans = torch.where(there, numbers + spans.max(), spans)
        visual = visual | there
        merges += getattr(output, "duet_merges", [])
        if duet.config.proportional and hasattr(output, "duet_sizes"):
            here = log_sizes(output.duet_sizes, there)
            log_s = here if log_s is None else log_s + here
    if not bool(visual.any()):
        return None
    mask = kwargs.get("attention_mask")
    valid = torch.ones_like(visual)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        valid = mask[:, -ids.shape[1] :].bool()
    queries = None
    if duet.ranking_layers:
        queries = query_places(duet.config, duet.tokenizer, ids, visual, valid, labels)
    return ForwardPass(
        visual, valid, spans, queries, limits=torch.bincount(spans.flatten()).double(),
        unanswered=None if labels is None else ~has_answer(labels), merges=merges,
        removed=torch.zeros_like(ids[:, :1]), holes_right=not bool(valid[:, -1].all()),
        log_sizes=log_s,
    )  # fmt: skip
