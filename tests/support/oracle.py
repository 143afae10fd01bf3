"""Independent oracles: slow loops that share nothing with the package but docs/method.md."""

from __future__ import annotations

import math
from typing import Any

import torch
import zoo
from gathered import counted, gathered_stock
from torch import Tensor


@torch.no_grad()
def masked_prefill(
    model: Any, batch: dict[str, Any], kept: dict[int, Tensor], renumber: bool, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The stock layers on the full sequence; what was dropped is hidden as a key instead of removed.

    Args:
        kept: drop layer -> (B, S) bool, the tokens alive from there on.
        sizes: (B, S), each key counts that many times in every softmax; None for once.

    Returns:
        (B, S, D) final hidden states and (B, S) bool, where they mean something.
    """
    core = model.model
    language_model, got = core.language_model, {}
    handle = language_model.register_forward_pre_hook(lambda m, a, k: got.update(k), with_kwargs=True)
    model(**batch)
    handle.remove()
    hidden, given = got["inputs_embeds"], got["position_ids"]
    rows, length = hidden.shape[:2]
    mask = batch.get("attention_mask")
    alive = torch.ones(rows, length, dtype=torch.bool) if mask is None else mask.bool()
    everyone = alive
    positions = torch.arange(length)[None].expand(rows, -1) if given is None else given.expand(rows, -1)
    implementation = language_model.config._attn_implementation
    language_model.set_attn_implementation("sdpa")
    for i, layer in enumerate(language_model.layers):
        alive = kept.get(i, alive)
        visible = torch.ones(length, length, dtype=torch.bool).tril()[None, None] & alive[:, None, None]
        visible = counted(visible | torch.eye(length, dtype=torch.bool), sizes)
        gone = (everyone & ~alive).cumsum(1) if renumber else torch.zeros_like(positions)
        rotary = language_model.rotary_emb(hidden, (positions - gone).clamp(min=0))
        # the class's forward: no hook of anyone runs
        hidden = type(layer).forward(layer, hidden, attention_mask=visible, position_embeddings=rotary)
    language_model.set_attn_implementation(implementation)
    return language_model.norm(hidden), alive


@torch.no_grad()
def masked_stock(
    model: Any, batch: dict[str, Any], kept: dict[int, Tensor], renumber: bool, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`masked_prefill` for any decoder: the stock language model itself, on what it was given in a compressed call.

    Its own masks (causal, sliding, bidirectional in images), positions and deepstack stay; what was dropped is hidden
    as a key in every later layer. Arguments and results as in `masked_prefill`. A linear layer has no keys to hide:
    see `gathered_stock`.
    """
    if zoo.is_hybrid(model):
        return gathered_stock(model, batch, kept, renumber, sizes)
    language_model, got = zoo.decoder(model), {}
    capture = language_model.register_forward_pre_hook(lambda m, a, k: got.update(k), with_kwargs=True, prepend=True)
    model(**batch, use_cache=False)
    capture.remove()
    got = {k: v for k, v in got.items() if k not in ("duet", "past_key_values")} | {"use_cache": False}
    rows, length = got["inputs_embeds"].shape[:2]
    given = batch.get("attention_mask")
    alive = everyone = torch.ones(rows, length, dtype=torch.bool) if given is None else given.bool()
    by_layer = []
    for i in range(len(language_model.layers)):
        alive = kept.get(i, alive)
        by_layer.append(alive)

    def hide(layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        alive, mask = by_layer[layer.self_attn.layer_idx], kwargs["attention_mask"]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        visible = mask if mask.dtype == torch.bool else mask == 0
        visible = (visible & alive[:, None, None]) | torch.eye(length, dtype=torch.bool)
        kwargs["attention_mask"] = counted(visible, torch.ones(rows, length) if sizes is None else sizes)
        if renumber:
            gone = (everyone & ~alive).cumsum(1)
            places = got["position_ids"]
            places = torch.arange(length)[None] if places is None else places
            kwargs["position_ids"] = (places - gone).clamp(min=0)
            kwargs["position_embeddings"] = language_model.rotary_emb(args[0], kwargs["position_ids"])
        return args, kwargs

    layers = list(language_model.layers)
    compressing = [(m, m._forward_pre_hooks.copy(), m._forward_hooks.copy()) for m in [language_model, *layers]]
    for module, _, _ in compressing:
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    hooks = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in layers]
    try:
        hidden = language_model(**got).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
        for module, before, after in compressing:
            module._forward_pre_hooks.update(before)
            module._forward_hooks.update(after)
    return hidden, by_layer[-1]


def token_sizes(trace: Any, batch: dict[str, Any], family: str, more: int = 0) -> Tensor:
    """(B, S + more): how many tokens of the encoder each place of a prompt stands for, 1 at text.

    From the clusters in the trace, image after image in the order of encoding, and the places that are left of it.
    """
    found = [
        [1 + len(image.clusters[image.anchors.index(place)]) if place in image.anchors else 1 for place in places]
        for image, places in ((image, left(image, family)) for image in trace.images)
    ]
    if family in ("llava_next", "llava_next_video"):
        crops = len(found) - sum(len(image.scores) < 36 for image in trace.images)  # frames have fewer patches
        found = [
            *(packed(trace.images[i : i + 3], found[i : i + 3]) for i in range(0, crops, 3)),
            *found[crops:],
        ]
    counts = [count for image in found for count in image]
    samples = [(98, trace.samples), (97, trace.samples)]  # images are encoded before videos
    if trace.audio is not None:
        counts += [1 + len(members) for sound in trace.audio.sounds for members in sound.clusters]
        samples.append((94, trace.audio.samples))
    sizes = torch.ones(batch["input_ids"].shape[0], batch["input_ids"].shape[1] + more)
    for token, rows in samples:
        for row, sample in enumerate(rows):
            for place in sample.drops[0].kept:
                if int(batch["input_ids"][row, place]) == token:
                    sizes[row, place] = counts.pop(0)
    assert not counts
    return sizes


def left(image: Any, family: str) -> list[int]:
    """Places of an image's retained tokens in the order of the prompt; -1 for CLS, which enters in front."""
    if family in ("llava", "llava_mistral", "video_llava"):
        return [-1, *image.dominant, *image.anchors]
    return sorted(image.dominant + image.anchors)


def packed(crops: list[Any], sizes: list[list[int]]) -> list[int]:
    """A base crop of 6 x 6, then two tiles side by side, row by row."""
    whole = {}
    for number, (crop, counts) in enumerate(zip(crops, sizes, strict=True)):
        for place, count in zip(sorted(crop.dominant + crop.anchors), counts, strict=True):
            row, column = divmod(place, 6)
            whole[(0, row, column) if number == 0 else (1, row, 6 * (number - 1) + column)] = count
    return [whole[place] for place in sorted(whole)]


def stage_1(scores: list[float], metric: list[list[float]], k1: int, k2: int, width: int) -> dict[str, Any]:
    """docs/method.md, stage 1, step by step for one image."""
    n = len(scores)
    by_score = sorted(range(n), key=lambda i: -scores[i])
    dominant = sorted(by_score[:k1])
    rest = by_score[k1:]
    pool = rest[: min(width * k2, len(rest))]
    anchors: list[int] = []
    if k2:
        step = max(1, len(pool) // k2)
        anchors = [pool[j * step] for j in range(k2)]
    clusters: dict[int, list[int]] = {a: [] for a in anchors}
    for token in pool:
        if token in clusters:
            continue
        clusters[max(anchors, key=lambda a: cosine(metric[token], metric[a]))].append(token)
    return {"dominant": dominant, "anchors": anchors, "clusters": [clusters[a] for a in anchors]}


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b)))


def contextual(x: Tensor, anchors: list[int], clusters: list[list[int]]) -> Tensor:
    out = []
    for anchor, members in zip(anchors, clusters, strict=True):
        mean = sum((x[m] for m in members), torch.zeros_like(x[0])) / max(1, len(members))
        out.append(x[anchor] + mean)
    return torch.stack(out) if out else x[:0]


def stage_2(
    query: Tensor, key: Tensor, asked: list[int], valid: list[bool], sizes: list[float] | None = None
) -> list[float]:
    """docs/method.md, 2.2, for one row: query (H, n, d), key (Hkv, n, d) of every token, `asked` the set S.

    With `sizes`, token j counts sizes[j] times.
    """
    heads, n, width = query.shape
    share = heads // key.shape[0]
    scores = [0.0] * n
    for h in range(heads):
        for i in asked:
            seen = [j for j in range(i + 1) if valid[j]]
            logits = [float(query[h, i] @ key[h // share, j]) / math.sqrt(width) for j in seen]
            top = max(logits)
            exps = [math.exp(x - top) * (1 if sizes is None else sizes[j]) for x, j in zip(logits, seen, strict=True)]
            for j, e in zip(seen, exps, strict=True):
                scores[j] += e / sum(exps) / heads / len(asked)
    return scores


def stage_2_keep(scores: list[float], spans: list[int], limits: dict[int, int]) -> set[int]:
    kept: set[int] = set()
    for span, limit in limits.items():
        tokens = [i for i, s in enumerate(spans) if s == span]
        kept |= set(sorted(tokens, key=lambda i: -scores[i])[:limit])
    return kept


def distinct(generator: torch.Generator, *shape: int) -> Tensor:
    """Random numbers without ties in a row."""
    count = shape[-1]
    order = torch.argsort(torch.rand(*shape, generator=generator), dim=-1)
    return (order + 0.3 * torch.rand(*shape, generator=generator)) / count
