"""The full stage with both stages of compression on: the packed batch goes through `duet_vlm.apply`, as users' do.

All questions of a scene rank its visual tokens together, as the turns of a conversation do, and share what is kept.
CLS comes in with the retained tokens and is the one that knows the background when no patch of it is retained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import duet_vlm
from duet_vlm.demo.model import VISUAL_TOKENS
from duet_vlm.demo.questions import SKILLS
from duet_vlm.demo.vocabulary import IDS, IMAGE
from duet_vlm.stage1 import Merge
from duet_vlm.stage2.queries import IGNORED
from recipes.demo.attention import Packing
from recipes.demo.batches import PREFIX, Batch, Rows
from recipes.demo.targets import Targets


@dataclass(frozen=True)
class Passed:
    """What the losses want of a forward pass.

    `features` [B, 197, D], `pooled` [B, D]: of the tower.  `patches` [B, 196, D]: all of them, projected.  `states`
    [B, Q, D]: question tokens after the decoder.  `batch`: with its goals over the visual tokens that came in.
    Under compression also `cls` [B, D], projected, and `attended` [B, 196], the attention that stage 1 ranks by.
    """

    features: Tensor
    pooled: Tensor
    patches: Tensor
    states: Tensor
    batch: Batch
    cls: Tensor | None = None
    attended: Tensor | None = None


def cls_attention(layer: Any, hidden: Tensor) -> Tensor:
    """[B, 196] attention of CLS to every patch in a layer of the tower, averaged over heads, with gradients.

    hidden [B, 197, D]: what the layer is given.
    """
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    query, key = attention.q_proj(normed[:, :1]) * attention.scale, attention.k_proj(normed)
    query, key = (x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in (query, key))
    weights: Tensor = (query @ key.transpose(-1, -2)).float().softmax(-1)
    return weights.mean(1)[:, 0, 1:]


def coverage_loss(attended: Tensor, target: Targets) -> Tensor:
    """Kullback-Leibler divergence of CLS attention [B, 196] from equal shares for object centres and digit patches."""
    goal = ((target.center > 0) | (target.digit > 0)).float()
    goal = goal / goal.sum(1, keepdim=True)
    return (torch.xlogy(goal, goal) - goal * torch.log(attended + 1e-6)).sum(1).mean()


def stand_ins(merge: Merge, owner: Tensor) -> Tensor:
    """[B, 196] long: the visual token after stage 1 that holds what a patch shows, 0 being CLS, -1 for none.

    The token at the patch; else the first one at a patch of the same object; else the one it was merged into.
    `owner` [B, 196]: the object of each patch, -1 for none.
    """
    places = merge.places
    holder = torch.full_like(owner, -1)
    if merge.members.shape[1]:
        holder.scatter_(1, merge.members, 1 + merge.dominant.shape[1] + merge.joins)
    same = (owner[:, :, None] == owner.gather(1, places)[:, None]) & (owner >= 0)[..., None]
    holder = torch.where(same.any(-1), 1 + same.to(torch.uint8).argmax(-1), holder)
    return holder.scatter(1, places, (1 + torch.arange(places.shape[1], device=owner.device)).expand_as(places))


def on_retained(batch: Batch, merge: Merge) -> Batch:
    """The hints' goals over 196 patches as goals over the K tokens after stage 1; rows left without a goal go.

    A tally row goes when any counted object is lost: its shares would tell another number.  The answer to a background
    question is in CLS.
    """
    holder, count = stand_ins(merge, batch.owner), 1 + merge.places.shape[1]

    def shares(rows: Rows, goal: Tensor) -> Tensor:
        index = holder[rows.b]
        # one column more takes what is lost
        return goal.new_zeros(len(rows), count + 1).scatter_add(1, index.masked_fill(index < 0, count), goal)[:, :count]

    def flags(rows: Rows) -> Rows:
        goal = shares(rows, rows.goal.float()) > 0
        there = goal.any(1)
        return Rows(rows.b[there], rows.q[there], goal[there])

    sources = flags(batch.sources)
    asked = torch.from_numpy(batch.skill == SKILLS.index("background")).to(holder.device)
    in_cls = torch.zeros(int(asked.sum()), count, dtype=torch.bool, device=holder.device)
    in_cls[:, 0] = True
    sources = Rows(
        torch.cat([sources.b, batch.answers.b[asked]]), torch.cat([sources.q, batch.answers.q[asked]]),
        torch.cat([sources.goal, in_cls]),
    )  # fmt: skip
    start, centers = batch.tally.goal[:, : len(PREFIX)], batch.tally.goal[:, len(PREFIX) :]
    tally = torch.cat([start, shares(batch.tally, centers)], 1)
    whole = tally.sum(1) > 1 - 1e-4
    return replace(
        batch, words=flags(batch.words), mentions=flags(batch.mentions), sources=sources,
        tally=Rows(batch.tally.b[whole], batch.tally.q[whole], tally[whole]),
    )  # fmt: skip


class CompressedForward:
    """Runs packed batches through the core model under a `DuetConfig`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.given: Tensor | None = None
        self.seen: tuple[Tensor, Tensor] | None = None
        self.ranking_layer = model.model.vision_tower.encoder.layers[model.config.vision_feature_layer]
        self.ranking_layer.register_forward_hook(self._after_ranking_layer)
        model.model.vision_tower.register_forward_hook(self._after_tower)
        model.model.language_model.embed_tokens.register_forward_hook(self._after_embedding)

    def _after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        # at once: the core model puts the projected features in the place of the pooled output
        self.seen = output.hidden_states[self.model.config.vision_feature_layer], output.pooler_output

    def _after_ranking_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        self.given = args[0]

    def _after_embedding(self, embedding: nn.Module, args: Any, output: Tensor) -> Tensor:
        # as the projector's output, so that the decoder's residual stream is as narrow as without compression
        kind = output.device.type
        return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output

    def __call__(self, batch: Batch, config: duet_vlm.DuetConfig, packing: Packing) -> Passed:
        """`batch` holds all patches; the layers that `packing` records come before the first drop."""
        core, (scenes, questions) = self.model.model, batch.ids.shape
        device, prefix = batch.ids.device, len(PREFIX) + VISUAL_TOKENS
        start = torch.tensor([*PREFIX, *[IDS[IMAGE]] * VISUAL_TOKENS], device=device).expand(scenes, -1)
        position = torch.cat([torch.arange(prefix, device=device).expand(scenes, -1), prefix + batch.position], 1)
        labels = torch.full((scenes, prefix + questions), IGNORED, device=device)
        labels[batch.answers.b, prefix + batch.answers.q + 1] = batch.answers.goal
        with duet_vlm.apply(self.model, config, tokenizer=self.tokenizer) as handle:
            states = core(
                input_ids=torch.cat([start, batch.ids], 1), pixel_values=batch.pixels, position_ids=position,
                use_cache=False, packing=packing, duet_labels=labels, duet_together=True,
            ).last_hidden_state[:, -questions:]  # fmt: skip
        assert handle.engine.last is not None and self.seen is not None and self.given is not None
        features, pooled = self.seen
        # forward, not the module: stage 1's hooks speak of the tower's call, and the losses want every patch
        projected = core.multi_modal_projector.forward(features)
        attended = cls_attention(self.ranking_layer, self.given)
        batch = on_retained(batch, handle.engine.last.decisions[0])
        return Passed(features, pooled, projected[:, 1:], states, batch, projected[:, 0], attended)
