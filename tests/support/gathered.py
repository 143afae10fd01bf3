"""The oracle of hybrid decoders: a state cannot leave a token out, so the stock layers see the kept tokens alone."""

from __future__ import annotations

from typing import Any

import torch
import zoo
from torch import Tensor


def counted(visible: Tensor, sizes: Tensor | None) -> Tensor:
    """(B, 1, n, n) bool as an additive mask under which key j counts sizes[:, j] times; as it is without sizes."""
    if sizes is None:
        return visible
    return torch.where(visible, sizes.log()[:, None, None], torch.tensor(-1e30))


@torch.no_grad()
def gathered_stock(
    model: Any, batch: dict[str, Any], kept: dict[int, Tensor], renumber: bool, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The stock layers one by one, each row alone, on its kept tokens only: no padding, no hole, no cache, no mask.

    Args:
        kept: drop layer -> (B, S) bool, the tokens alive from there on.
        sizes: (B, S), each key counts that many times in the softmax of a layer with attention; None for once.

    Returns:
        (B, S, D) final hidden states and (B, S) bool, where they mean something.
    """
    decoder, got = zoo.decoder(model), {}
    capture = decoder.register_forward_pre_hook(lambda m, a, k: got.update(k), with_kwargs=True, prepend=True)
    model(**batch, use_cache=False)
    capture.remove()
    embeds, given = got["inputs_embeds"], got["position_ids"]
    rows, length = embeds.shape[:2]
    places = torch.arange(length).expand(rows, -1) if given is None else given
    places = places[1:] if len(places) == 4 and places.ndim == 3 else places  # the first axis is for packed rows
    implementation = decoder.config._attn_implementation
    decoder.set_attn_implementation("sdpa")
    final, last = torch.zeros_like(embeds), batch["attention_mask"].bool().clone()
    for row in range(rows):
        alive = batch["attention_mask"][row].bool()
        everyone, hidden = alive, embeds[row, alive][None]
        for i, layer in enumerate(decoder.layers):
            if i in kept:
                hidden, alive = hidden[:, kept[i][row, alive]], kept[i][row]
            gone = (everyone & ~alive).cumsum(0) if renumber else torch.zeros(length, dtype=torch.long)
            position_ids = (places[..., row, :] - gone)[..., alive].unsqueeze(-2)
            rope = decoder.rotary_emb(hidden, position_ids)
            mask = None
            if hasattr(layer, "self_attn"):
                n, weights = hidden.shape[1], None if sizes is None else sizes[row, alive][None]
                mask = counted(torch.ones(n, n, dtype=torch.bool).tril()[None, None], weights)
            # the class's forward: no hook of anyone runs
            told = {"attention_mask": mask, "position_embeddings": rope, "position_ids": position_ids}
            hidden = type(layer).forward(layer, hidden, **told)
        norm = decoder.embedding_norm if hasattr(decoder, "embedding_norm") else decoder.norm  # LFM2's name of it
        final[row, alive], last[row] = norm(hidden)[0], alive
    decoder.set_attn_implementation(implementation)
    return final, last
