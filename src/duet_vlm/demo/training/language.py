"""Stages 2 and 3: the language model learns to answer, first on few visual tokens with attention hints, then on all.

From scratch, the path question word -> object -> answer is not found in the time there is (answers stay at what is
likely in any scene); a language model that was pretrained on text brings it along.  The warm-up teaches it by attention
hints.  They make the attention of the first layers a partly supervised guide to the objects a question speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duet_vlm.demo.questions import LOCATIONS, SKILLS
from duet_vlm.demo.scenes import COLORS, DIGITS, GRID, SHAPES
from duet_vlm.demo.training import attention
from duet_vlm.demo.training.batches import PREFIX, Batch, Rows, causal_mask, make_batch
from duet_vlm.demo.training.distributed import Workers
from duet_vlm.demo.training.loop import Stage, generator, train
from duet_vlm.demo.training.targets import Targets, moved
from duet_vlm.demo.training.vision import VisionHeads
from duet_vlm.demo.vocabulary import EOS, IDS


@dataclass(frozen=True)
class Hint:
    """Which rows of a batch should look where: at these layers, with these heads (averaged).

    `among`: what the rows' masks run over: the prompt's first tokens, the image's patches or the question tokens.
    """

    name: str
    layers: tuple[int, ...]
    heads: slice
    among: str = "patches"


HINTS = (
    Hint("phrases", (0, 1), slice(4, 5), "text"),
    Hint("words", (1, 2), slice(0, 2)),
    Hint("mentions", (2, 3, 4), slice(2, 4)),
    Hint("nothing", (2, 3, 4), slice(2, 4), "prompt"),
    Hint("role0", (3, 4), slice(0, 1), "text"),
    Hint("role1", (3, 4), slice(1, 2), "text"),
    Hint("sources", (4, 5, 6), slice(2, 4)),
)
TALLY_LAYERS, TALLY_HEADS = (3, 4), slice(0, 2)  # each head alone: its share of the first token is the number
MENTION_LAYER, ANSWER_LAYER = 5, 7  # layers run before the read-outs


class LanguageHeads(nn.Module):
    """Linear read-outs of the decoder, used in training only.

    Projected object patches must hold their object's x, y and size; the end of a mention must hold them too after
    MENTION_LAYER layers, and how many objects it refers to; "ASSISTANT:" must hold, after ANSWER_LAYER layers, the
    difference in x, y and size of the two objects that a relation or comparison mentions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))
        self.count = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 6))
        self.difference = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))


@torch.no_grad()
def init_decoder(model: Any) -> None:
    """An initialisation for a tiny model: large embeddings, o = 0.3 v^T (copying from the start), small outputs."""
    decoder, scale = model.model.language_model, model.config.text_config.hidden_size**-0.5
    nn.init.normal_(decoder.embed_tokens.weight, std=0.5)
    model.lm_head.weight.copy_(0.1 * decoder.embed_tokens.weight)
    for layer in decoder.layers:
        heads, mlp = layer.self_attn, layer.mlp
        nn.init.normal_(heads.q_proj.weight, std=0.8 * scale)
        nn.init.normal_(heads.k_proj.weight, std=0.8 * scale)
        nn.init.normal_(heads.v_proj.weight, std=scale)
        heads.o_proj.weight.copy_(0.3 * heads.v_proj.weight.T)
        nn.init.normal_(mlp.gate_proj.weight, std=scale)
        nn.init.normal_(mlp.up_proj.weight, std=scale)
        nn.init.normal_(mlp.down_proj.weight, std=0.3 * mlp.down_proj.weight.shape[1] ** -0.5)
    projector = model.model.multi_modal_projector
    nn.init.normal_(projector.linear_1.weight, std=projector.linear_1.weight.shape[1] ** -0.5 / 2)
    nn.init.normal_(projector.linear_2.weight, std=scale)


def alignment_loss(projected: Tensor, embeddings: Tensor, target: Targets) -> Tensor:
    """Region-word alignment: a patch's projected feature must name its shape, colour, digit and quadrant.

    projected [B, 196, D], embeddings [vocabulary, D]; cosine-like scores against the word embeddings.
    """
    features = projected.float()
    features = features * torch.rsqrt(features.pow(2).mean(-1, keepdim=True) + 1e-6)
    table = embeddings.float() * 0.25
    own, shown = target.shape > 0, target.digit > 0
    index = torch.arange(GRID * GRID, device=own.device)
    quadrant = (index // GRID // (GRID // 2) * 2 + index % GRID // (GRID // 2)).expand(len(own), -1)

    def name(words: tuple[str, ...], where: Tensor, goal: Tensor) -> Tensor:
        first = IDS[words[0]]
        return F.cross_entropy(features[where] @ table[first : first + len(words)].T, goal[where])

    return (name(SHAPES, own, target.shape - 1) + name(COLORS, own, target.color - 1)
            + name(DIGITS, shown, target.digit - 1) + name(LOCATIONS, own, quadrant))  # fmt: skip


def hint_losses(batch: Batch, packing: attention.Packing, tally: bool) -> dict[str, Tensor]:
    """-log of the attention mass that each hint's rows put where they should, averaged over rows.

    For the tally, the Kullback-Leibler divergence from the goal: there the shares themselves matter.
    """
    losses = {}
    for hint in HINTS:
        rows = batch.roles[int(hint.name[-1])] if hint.name.startswith("role") else getattr(batch, hint.name)
        if not len(rows):
            continue
        weights = torch.stack(
            [packing.weights[layer][:, hint.heads].float().mean(1)[rows.b, rows.q] for layer in hint.layers]
        )
        spans = {"prompt": (0, len(PREFIX)), "patches": (len(PREFIX), packing.prefix), "text": (packing.prefix, None)}
        weights = weights[..., slice(*spans[hint.among])]
        losses[hint.name] = -torch.log((weights * rows.goal).sum(-1) + 1e-4).mean()
    rows = batch.tally
    if tally and len(rows):
        shares = torch.stack([packing.weights[i][:, TALLY_HEADS].float()[rows.b, :, rows.q] for i in TALLY_LAYERS])
        goal = rows.goal[None, :, None]
        away = torch.xlogy(goal, goal) - goal * torch.log(shares[..., : packing.prefix] + 1e-6)
        losses["tally"] = away.sum(-1).mean()
    return losses


class LanguageStep:
    """The losses of one packed batch."""

    def __init__(self, model: Any, heads: LanguageHeads, vision_heads: VisionHeads, train_vision: bool) -> None:
        self.model, self.heads, self.vision_heads, self.train_vision = model, heads, vision_heads, train_vision
        self.states: dict[int, Tensor] = {}
        layers = model.model.language_model.layers
        for index in (MENTION_LAYER, ANSWER_LAYER):
            layers[index - 1].register_forward_hook(
                lambda module, args, output, index=index: self.states.__setitem__(index, output)
            )

    def __call__(self, batch: Batch, hints: float, tally: bool, contiguous: bool) -> tuple[Tensor, dict[str, float]]:
        """The total loss and numbers for the log.

        `hints`: weight of the attention hints; `tally`: whether that one is among them; `contiguous`: positions as
        after a reduction.
        """
        core = self.model.model
        device, (scenes, kept) = batch.kept.device, batch.kept.shape
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.set_grad_enabled(self.train_vision):
                seen = core.vision_tower(pixel_values=batch.pixels, output_hidden_states=True)
            features = seen.hidden_states[-2]
            projected = core.multi_modal_projector(features)
            patches = projected[:, 1:]
            width = patches.shape[-1]
            chosen = patches.gather(1, batch.kept[..., None].expand(-1, -1, width))
            image_position = 2 + batch.kept
            after = 2 + GRID * GRID
            if contiguous:  # with CLS in front, as stage 1 hands tokens over
                chosen = torch.cat([projected[:, :1], chosen[:, 1:]], 1)
                image_position = (2 + torch.arange(kept, device=device)).expand(scenes, -1)
                after = 2 + kept
            embed = core.language_model.embed_tokens
            start = embed(torch.tensor(PREFIX, device=device)).expand(scenes, -1, -1)
            inputs = torch.cat([start.to(chosen.dtype), chosen, embed(batch.ids).to(chosen.dtype)], 1)
            position = torch.cat(
                [torch.arange(2, device=device).expand(scenes, -1), image_position, after + batch.position], 1
            )
            record = frozenset(i for h in HINTS for i in h.layers) if hints > 0 else frozenset()
            packing = attention.Packing(2 + kept, causal_mask(2 + kept).to(device), batch.visible, record)
            states = core.language_model(
                inputs_embeds=inputs, position_ids=position, use_cache=False, packing=packing
            ).last_hidden_state[:, 2 + kept :]
            answers = batch.answers
            ends = torch.stack([states[answers.b, answers.q], states[answers.b, answers.q + 1]])
            logits = self.model.lm_head(ends).float()
        answer = F.cross_entropy(logits[0], answers.goal)
        stop = F.cross_entropy(logits[1], torch.full_like(answers.goal, IDS[EOS]))
        align = alignment_loss(patches, embed.weight, batch.targets)
        read_out = self._read_out(batch, patches, 2 + kept)
        loss = answer + 0.05 * stop + 0.3 * align + 0.5 * torch.stack(list(read_out.values())).sum()
        numbers = {"answer": answer.item(), "align": align.item(), "stop": stop.item()}
        numbers |= {name: value.item() for name, value in read_out.items()}
        if hints > 0:
            losses = hint_losses(batch, packing, tally)
            loss = loss + hints * torch.stack(list(losses.values())).sum()
            numbers |= {f"hint_{name}": value.item() for name, value in losses.items()}
        if self.train_vision:
            seeing, seen_numbers = self.vision_heads(features, seen.pooler_output, batch.targets)
            loss = loss + 0.3 * seeing
            numbers |= {f"patch_{k}": seen_numbers[k] for k in ("shape", "digit", "cls")}
        right = (logits[0].argmax(-1) == answers.goal).float()
        for i, skill in enumerate(SKILLS):
            mine = torch.from_numpy(batch.skill == i).to(device)
            numbers[skill] = right[mine].mean().item() if mine.any() else float("nan")
        return loss, numbers

    def _read_out(self, batch: Batch, patches: Tensor, prefix: int) -> dict[str, Tensor]:
        """The losses of LanguageHeads, weighted to be of one size."""
        own = batch.targets.shape > 0

        def state(layer: int, rows: Rows) -> Tensor:
            return self.states[layer][:, prefix:][rows.b, rows.q].float()

        place = self.heads.place(state(MENTION_LAYER, batch.places))
        count = self.heads.count(state(MENTION_LAYER, batch.counts))
        difference = self.heads.difference(state(ANSWER_LAYER, batch.differences))
        return {
            "read_patch": 20 * F.mse_loss(self.heads.patch(patches[own].float()), batch.targets.place[own]),
            "read_place": 20 * F.mse_loss(place, batch.places.goal),
            "read_count": F.cross_entropy(count, batch.counts.goal),
            "read_difference": 10 * F.mse_loss(difference, batch.differences.goal),
        }


def train_language(
    model: Any,
    heads: LanguageHeads,
    vision_heads: VisionHeads,
    stage: Stage,
    scenes_per_step: int,
    visual_tokens: Callable[[int], int],
    hints: Callable[[int], float],
    tally: bool,
    train_vision: bool,
    folder: Path,
    workers: Workers,
    resume: bool,
    report: Callable[[Stage, int, str | None], None],
) -> None:
    """One language stage.  `visual_tokens(step)` and `hints(step)` are its schedules."""
    attention.register()
    model.set_attn_implementation(attention.NAME)
    one_step = LanguageStep(model, heads, vision_heads, train_vision)

    def losses(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, count = generator(stage, step, workers), visual_tokens(step)
        batch = moved(make_batch(rng, scenes_per_step // workers.count, count), workers.device)
        return one_step(batch, hints(step), tally, contiguous=count < GRID * GRID and step % 2 == 0)

    seeing = [*model.model.vision_tower.parameters(), *vision_heads.parameters()]
    known = {id(p) for p in seeing}
    reading = [p for p in [*model.parameters(), *heads.parameters()] if id(p) not in known]
    modules = nn.ModuleDict({"model": model, "heads": heads, "vision_heads": vision_heads})
    groups = [reading, seeing] if train_vision else [reading]
    train(stage, modules, groups, losses, folder, workers, resume, report)
