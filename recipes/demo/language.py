"""Stages 2 and 3: the language model learns to answer, first on few visual tokens with attention hints, then on all.

Or, in stage 3, on those that both stages of compression keep.

From scratch, the path question word -> object -> answer is not found in the time there is (answers stay at what is
likely in any scene); a language model that was pretrained on text brings it along.  The warm-up teaches it by attention
hints.  They make the attention of the first layers a partly supervised guide to the objects a question speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duet_vlm import DuetConfig
from duet_vlm.demo.questions import LOCATIONS, SKILLS
from duet_vlm.demo.scenes import BACKGROUNDS, COLORS, DIGITS, GRID, SHAPES
from duet_vlm.demo.vocabulary import EOS, IDS, processor
from recipes.demo import attention
from recipes.demo.batches import PREFIX, QUESTION_TOKENS, Batch, Rows, causal_mask, make_batch
from recipes.demo.compressed import CompressedForward, Passed, coverage_loss
from recipes.demo.distributed import Workers
from recipes.demo.hints import HINTS, hint_losses
from recipes.demo.loop import Stage, generator, train
from recipes.demo.targets import Targets, moved
from recipes.demo.vision import VisionHeads

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


def alignment_loss(projected: Tensor, embeddings: Tensor, target: Targets, cls: Tensor | None = None) -> Tensor:
    """Region-word alignment: a patch's projected feature must name its shape, colour, digit and quadrant.

    projected [B, 196, D], embeddings [vocabulary, D]; cosine-like scores against the word embeddings.  With `cls`
    [B, D], it must name the background, and so must the patches that show nothing else.
    """

    def normed(features: Tensor) -> Tensor:
        features = features.float()
        return features * torch.rsqrt(features.pow(2).mean(-1, keepdim=True) + 1e-6)

    features = normed(projected)
    table = embeddings.float() * 0.25
    own, shown = target.shape > 0, target.digit > 0
    index = torch.arange(GRID * GRID, device=own.device)
    quadrant = (index // GRID // (GRID // 2) * 2 + index % GRID // (GRID // 2)).expand(len(own), -1)

    def name(words: tuple[str, ...], where: Tensor, goal: Tensor) -> Tensor:
        first = IDS[words[0]]
        return F.cross_entropy(features[where] @ table[first : first + len(words)].T, goal[where])

    loss = (name(SHAPES, own, target.shape - 1) + name(COLORS, own, target.color - 1)
            + name(DIGITS, shown, target.digit - 1) + name(LOCATIONS, own, quadrant))  # fmt: skip
    if cls is not None:
        first = IDS[BACKGROUNDS[0]]
        in_cls = F.cross_entropy(normed(cls) @ table[first : first + len(BACKGROUNDS)].T, target.background)
        loss = loss + in_cls + name(BACKGROUNDS, ~own, target.background[:, None].expand_as(own))
    return loss


class LanguageStep:
    """The losses of one packed batch."""

    def __init__(self, model: Any, heads: LanguageHeads, vision_heads: VisionHeads, train_vision: bool) -> None:
        self.model, self.heads, self.vision_heads, self.train_vision = model, heads, vision_heads, train_vision
        self.compressed = CompressedForward(model, processor())
        self.states: dict[int, Tensor] = {}  # layers run -> question tokens
        layers = model.model.language_model.layers
        for index in (MENTION_LAYER, ANSWER_LAYER):
            layers[index - 1].register_forward_hook(
                lambda module, args, output, index=index: self.states.__setitem__(index, output[:, -QUESTION_TOKENS:])
            )

    def __call__(
        self, batch: Batch, hints: float, tally: bool, contiguous: bool = False, compression: DuetConfig | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The total loss and numbers for the log.

        `hints`: weight of the attention hints; `tally`: whether that one is among them; `contiguous`: positions as
        after a reduction; `compression`: what to apply (the batch then holds all visual tokens).
        """
        device = batch.kept.device
        layers = {i for h in HINTS for i in h.layers} if hints > 0 else set()
        if compression is not None:  # the goals speak of the tokens before the first drop
            layers = {i for i in layers if all(i < drop.layer for drop in compression.drops)}
        causal = causal_mask(len(PREFIX) + batch.kept.shape[1]).to(device)
        packing = attention.Packing(causal, batch.visible, frozenset(layers))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            if compression is None:
                passed = self._stock(batch, contiguous, packing)
            else:
                passed = self.compressed(batch, compression, packing)
            batch, states, answers = passed.batch, passed.states, batch.answers
            ends = torch.stack([states[answers.b, answers.q], states[answers.b, answers.q + 1]])
            logits = self.model.lm_head(ends).float()
        answer = F.cross_entropy(logits[0], answers.goal)
        stop = F.cross_entropy(logits[1], torch.full_like(answers.goal, IDS[EOS]))
        align = alignment_loss(
            passed.patches, self.model.model.language_model.embed_tokens.weight, batch.targets, passed.cls
        )
        read_out = self._read_out(batch, passed.patches)
        loss = answer + 0.05 * stop + 0.3 * align + 0.5 * torch.stack(list(read_out.values())).sum()
        numbers = {"answer": answer.item(), "align": align.item(), "stop": stop.item()}
        numbers |= {name: value.item() for name, value in read_out.items()}
        if hints > 0:
            losses = hint_losses(batch, packing, tally)
            loss = loss + hints * torch.stack(list(losses.values())).sum()
            numbers |= {f"hint_{name}": value.item() for name, value in losses.items()}
        if self.train_vision:
            seeing, seen_numbers = self.vision_heads(passed.features, passed.pooled, batch.targets)
            loss = loss + 0.3 * seeing
            numbers |= {f"patch_{k}": seen_numbers[k] for k in ("shape", "digit", "cls")}
        if passed.attended is not None:
            coverage = coverage_loss(passed.attended, batch.targets)
            loss = loss + 0.5 * coverage
            numbers["coverage"] = coverage.item()
        right = (logits[0].argmax(-1) == answers.goal).float()
        for i, skill in enumerate(SKILLS):
            mine = torch.from_numpy(batch.skill == i).to(device)
            numbers[skill] = right[mine].mean().item() if mine.any() else float("nan")
        return loss, numbers

    def _stock(self, batch: Batch, contiguous: bool, packing: attention.Packing) -> Passed:
        """The visual tokens are the patches of `batch.kept`."""
        core = self.model.model
        device, (scenes, kept) = batch.kept.device, batch.kept.shape
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
        states = core.language_model(
            inputs_embeds=inputs, position_ids=position, use_cache=False, packing=packing
        ).last_hidden_state[:, 2 + kept :]
        return Passed(features, seen.pooler_output, patches, states, batch)

    def _read_out(self, batch: Batch, patches: Tensor) -> dict[str, Tensor]:
        """The losses of LanguageHeads, weighted to be of one size."""
        own = batch.targets.shape > 0

        def state(layer: int, rows: Rows) -> Tensor:
            return self.states[layer][rows.b, rows.q].float()

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
    compression: Callable[[int], DuetConfig | None] = lambda step: None,
) -> None:
    """One language stage.  `visual_tokens(step)`, `hints(step)` and `compression(step)` are its schedules."""
    attention.register()
    model.set_attn_implementation(attention.NAME)
    one_step = LanguageStep(model, heads, vision_heads, train_vision)

    def losses(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, count = generator(stage, step, workers), visual_tokens(step)
        batch = moved(make_batch(rng, scenes_per_step // workers.count, count), workers.device)
        contiguous = count < GRID * GRID and step % 2 == 0
        return one_step(batch, hints(step), tally, contiguous, compression(step))

    seeing = [*model.model.vision_tower.parameters(), *vision_heads.parameters()]
    known = {id(p) for p in seeing}
    reading = [p for p in [*model.parameters(), *heads.parameters()] if id(p) not in known]
    modules = nn.ModuleDict({"model": model, "heads": heads, "vision_heads": vision_heads})
    groups = [reading, seeing] if train_vision else [reading]
    train(stage, modules, groups, losses, folder, workers, resume, report)
