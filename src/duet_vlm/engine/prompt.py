"""What a prompt brings: its pixels encoded, its visual tokens found and numbered, its query tokens chosen."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from ..errors import DuetError
from ..families import audience, encoding
from ..families.encoding import Outcome
from ..host import cache_of
from ..host.types import Core
from ..stage1 import Merge
from ..stage2.queries import has_answer, query_places
from ..tensors.tokens import number_runs, number_spans, spread
from .forward_pass import Prefill
from .guiding import Guide, guide_of
from .merge_sizes import log_sizes
from .padding import Padding
from .plan import AUDIO, Plan


def has_pixels(plan: Plan, kwargs: dict[str, Any]) -> bool:
    """Whether a call brings images or videos that are not encoded yet, or sound that is to be compressed."""
    return any(kwargs.get(name) is not None for names in plan.arguments.values() for name in names)


def brings_images(plan: Plan, kwargs: dict[str, Any]) -> bool:
    """Whether a call brings images or videos, as pixels or encoded already, or sound that is to be compressed."""
    encoded = (kwargs.get("mm_encoder_outputs") or {}).values()
    return has_pixels(plan, kwargs) or any(output is not None for output in encoded)


@torch.compiler.disable(recursive=False)
def encode(plan: Plan, core: Core, kwargs: dict[str, Any], repeats: int = 1) -> dict[str, Any]:
    """Encode the pixels here, as `generate` does, so that nothing of ours reaches the vision tower.

    Args:
        plan: the settings.
        core: the core model.
        kwargs: of its call.
        repeats: how often `generate` has every tensor of a call one behind the other.

    Returns:
        The same with `mm_encoder_outputs` in the place of pixels.
    """
    outputs, others = dict(kwargs.get("mm_encoder_outputs") or {}), dict(kwargs)
    outputs.pop(AUDIO, None)  # no core model takes any
    for modality, names in plan.arguments.items():
        if any(kwargs.get(name) is not None for name in names):
            if outputs.get(modality) is not None:
                raise DuetError(f"the {modality}s came both as pixels and encoded: give one of them.")
            encoder = getattr(core, f"get_{modality}_features")
            given = {k: kwargs[k] for k in inspect.signature(encoder).parameters if k in kwargs}
            if modality == AUDIO:  # it is not encoded before it is repeated, as images are
                given = {k: x[::repeats] if isinstance(x, Tensor) else x for k, x in given.items()}
            with audience.for_engine():
                outputs[modality] = encoder(**given, return_dict=True)
        for name in names:
            others.pop(name, None)
    if outputs.get(AUDIO) is not None:
        others |= _with_sound(core, others, plan.tokens[AUDIO], outputs[AUDIO], repeats)
    return plan.family.without_removed(others | {"mm_encoder_outputs": outputs})


def _with_sound(core: Any, kwargs: dict[str, Any], token: int, output: Any, repeats: int) -> dict[str, Tensor]:
    """Embed the prompt with what stage 1 made of its sounds, as the core model takes no encoded ones.

    Nothing where their tokens are not those of the prompt, which stock reports.
    """
    outcome: Outcome = getattr(output, encoding.ATTRIBUTE)
    ids, embeds = kwargs["input_ids"], kwargs.get("inputs_embeds")
    output.pooler_output = outcome.features * repeats  # one for each sound
    there = ids == token
    if int(there.sum()) != sum(map(len, output.pooler_output)):
        return {}
    features = torch.cat([outcome.features[i] for i in order_of(output.pooler_output, outcome, there)])
    embeds = core.get_input_embeddings()(ids) if embeds is None else embeds
    return {"inputs_embeds": embeds.masked_scatter(there[..., None].to(embeds.device), features.to(embeds))}


def outcome_of(plan: Plan, output: Any) -> Outcome | None:
    """Return what stage 1 decided about an encoder's output, or None where stage 1 is off.

    Raises:
        DuetError: features about which nothing was decided, or under other settings.
    """
    outcome: Outcome | None = getattr(output, encoding.ATTRIBUTE, None)
    if outcome is not None and outcome.engine_only:
        return outcome  # settings may have changed between encoding and now
    if not plan.config.merges:
        return None
    if outcome is None or outcome.settings != encoding.settings_of(plan.config):
        why = "before these settings of stage 1 were applied" if outcome is not None else "without stage 1"
        raise DuetError(
            f"image features came that were encoded {why}, in parts or by hand, so they cannot be merged: pass the "
            "pixel values, leave out prefill_chunk_size, or encode again after apply."
        )
    return outcome


def order_of(entries: Any, outcome: Outcome, there: Tensor) -> list[int]:
    """Match the features of images, which `generate` may have repeated, with the images that were encoded.

    Where there are k times as many, each row of the prompt stands k times, one behind the other, and so do its entries.

    Args:
        entries: (n, D) of each.
        there: (B, S) bool, their visual tokens in the prompt.
    """
    known, now = len(outcome.sizes), len(entries)
    if now == known:
        return list(range(known))
    repeats, rest = divmod(now, known)
    order: list[int] = []
    if not rest and len(there) % repeats == 0:
        left = iter(range(known))
        for wanted in there.sum(1).tolist()[::repeats]:
            row: list[int] = []
            while wanted > 0 and (entry := next(left, None)) is not None:
                row.append(entry)
                wanted -= len(outcome.sizes[entry])
            order += row * repeats
    if len(order) != now:
        raise DuetError(
            f"{now} encoded images came with a prompt where {known} were encoded: pass the output of one call of "
            "the encoder as it is, or the pixel values."
        )
    return order


@torch.compiler.disable  # words and host reads are no graph, and spaCy cannot be traced
def read_prompt(
    plan: Plan, ids: Tensor, kwargs: dict[str, Any], padding: Padding, labels: Tensor | None
) -> tuple[Prefill, dict[str, Any]] | None:
    """Find and number the visual tokens and choose the query tokens; None where no visual token comes in.

    Args:
        plan: the settings.
        ids: (B, S).
        kwargs: of the core model's call, encoded.
        padding: what the call says of it.
        labels: (B, S), or None.

    Raises:
        DuetError: a part of an image, where that can be seen.
    """
    visual, spans = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids)
    decisions: list[Merge] = []
    gone: Tensor | None = None
    log_s: Tensor | None = None
    outputs = dict(kwargs["mm_encoder_outputs"])
    audio: Tensor | None = None
    sounds, heard = 0, list[Merge]()
    for modality, token in plan.tokens.items():
        output, there = outputs.get(modality), ids == token
        if output is None:
            continue
        entries = plan.family.entries(output)
        lengths = [len(features) for features in entries]
        if not lengths or int(there.sum()) != sum(lengths):
            return None  # text alone, or a mismatch that stock reports
        for length in lengths:
            if not plan.family.is_whole(plan.model_config, length):
                raise DuetError(
                    f"an image came with {length} visual tokens, which is a part of it: give the whole prompt at "
                    "once (leave out prefill_chunk_size)."
                )
        outcome = outcome_of(plan, output)
        if outcome is not None:
            order = order_of(entries, outcome, there)
            lengths = [len(outcome.sizes[i]) for i in order]  # some stock models repeat entries in another order
            outputs[modality] = with_merged_features(plan, output, outcome, order)
            sizes = torch.cat([outcome.sizes[i] for i in order]).to(there.device)
            removed = spread((sizes == 0)[:, None], there)[..., 0]
            gone = removed if gone is None else gone | removed
            (heard if modality == AUDIO else decisions).extend(outcome.decisions)
            if plan.config.proportional:
                here = log_sizes(sizes, there)
                log_s = here if log_s is None else log_s + here
        numbers = number_runs(there) if modality in plan.family.runs else number_spans(there, lengths)
        if modality == AUDIO:
            audio, sounds = there, int(numbers.max())
        spans = torch.where(there, numbers + spans.max(), spans)
        visual = visual | there
    if not bool(visual.any()):
        return None
    guide: Guide | None = None
    if plan.config.audio_guides and audio is not None and gone is not None:
        spans, guide = guide_of(spans, visual & (ids == plan.tokens.get("video", -1)), audio, gone)
    if plan.config.pixelprune is not None and gone is not None and not bool(gone.any()):
        gone = None  # a picture without repeats is as stock has it, to the bit
    left = (spans if gone is None else spans.masked_fill(gone, 0)).flatten()
    limits = torch.zeros(int(spans.max()) + 1, dtype=torch.long, device=ids.device)
    queries, cache = ids[:, :0], cache_of(kwargs)
    if plan.ranking_layers:
        queries = query_places(plan.config, plan.tokenizer, ids, visual, padding.valid, labels)
    state = Prefill(
        plan=plan,
        visual=visual,
        valid=padding.valid,
        spans=spans,
        limits=limits.index_add(0, left, torch.ones_like(left)),
        queries=queries,
        holes_right=not plan.linear_layers and not bool(padding.valid[:, -1].all()),
        past_valid=padding.past,
        merged_away=gone,
        without_answer=None if labels is None else ~has_answer(labels),
        sees_ahead=plan.family.sees_ahead(kwargs, 0 if cache is None else cache.get_seq_length()),
        log_sizes=log_s,
        decisions=decisions,
        audio=audio,
        sounds=sounds,
        heard=heard,
        guide=guide,
    )
    outputs.pop(AUDIO, None)  # it is embedded
    others = {name: x for name, x in kwargs.items() if name != "mm_encoder_outputs"}
    return state, others | ({"mm_encoder_outputs": outputs} if outputs else {})


def with_merged_features(plan: Plan, output: Any, outcome: Outcome, order: list[int]) -> Any:
    """Return a copy of the encoder's output that has what stage 1 made in the place of its features."""
    new, features = copy.copy(output), outcome.features
    if order != list(range(len(outcome.sizes))):
        chosen = [features[i] for i in order]
        features = torch.stack(chosen) if isinstance(features, Tensor) else chosen
    elif not isinstance(features, Tensor):
        features = list(features)
    setattr(new, plan.family.features, features)
    return new
