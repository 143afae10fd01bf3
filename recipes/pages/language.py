"""Stages 2 to 4: the language model learns to read pages, first from few visual tokens with attention hints.

As with the demonstration model, the path question word -> entry -> answer is not found from scratch in the time there
is; hints on the attention of the first layers teach it. So text-guided scores are partly supervised here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duet_vlm.pages.asking import SKILLS
from duet_vlm.pages.vocabulary import DIGITS, IDS, PAGE_WORDS
from recipes.demo import attention
from recipes.demo.batches import causal_mask
from recipes.demo.distributed import Workers
from recipes.demo.hints import Hint, hint_loss
from recipes.demo.loop import Stage, generator, train
from recipes.demo.targets import moved
from recipes.pages.batches import PREFIX, Batch, make_batch
from recipes.pages.targets import PATCHES, Targets
from recipes.pages.vision import VisionHeads

HINTS = (
    Hint("phrases", (0, 1), slice(4, 5), "text"),
    Hint("words", (1, 2), slice(0, 2)),
    Hint("entries", (2, 3), slice(2, 4)),
    Hint("nothing", (2, 3), slice(2, 4), "prompt"),
    Hint("role0", (2, 3), slice(0, 1), "text"),
    Hint("role1", (2, 3), slice(1, 2), "text"),
    Hint("sources", (3, 4, 5), slice(2, 4)),
)


def alignment_loss(projected: Tensor, embeddings: Tensor, target: Targets) -> Tensor:
    """A patch's projected feature must name its word, or its number's key and first digit.

    projected [B, 400, D], embeddings [tokens, D]; cosine-like scores against the token embeddings.
    """
    features = projected.float()
    features = features * torch.rsqrt(features.pow(2).mean(-1, keepdim=True) + 1e-6)
    table = embeddings.float() * 0.25

    def name(first: str, count: int, goal: Tensor) -> Tensor:
        where = goal > 0
        start = IDS[first]
        return F.cross_entropy(features[where] @ table[start : start + count].T, goal[where] - 1)

    words = name(PAGE_WORDS[0], len(PAGE_WORDS), target.word) + name(PAGE_WORDS[0], len(PAGE_WORDS), target.key)
    return words + name(DIGITS[0], len(DIGITS), target.digits[..., 0])


class LanguageStep:
    """The losses of one packed batch."""

    def __init__(self, model: Any, vision_heads: VisionHeads, train_vision: bool) -> None:
        self.model, self.vision_heads, self.train_vision = model, vision_heads, train_vision

    def __call__(self, batch: Batch, hints: float, contiguous: bool) -> tuple[Tensor, dict[str, float]]:
        """The total loss and numbers for the log.

        `hints`: weight of the attention hints; `contiguous`: positions as after a reduction.
        """
        device, (pages, kept) = batch.kept.device, batch.kept.shape
        core, answers = self.model.model, batch.answers
        layers = frozenset(i for h in HINTS for i in h.layers) if hints > 0 else frozenset[int]()
        packing = attention.Packing(causal_mask(len(PREFIX) + kept).to(device), batch.visible, layers)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.set_grad_enabled(self.train_vision):
                seen = core.vision_tower(pixel_values=batch.pixels, output_hidden_states=True)
            features = seen.hidden_states[-2]
            patches = core.multi_modal_projector(features)[:, 1:]
            chosen = patches.gather(1, batch.kept[..., None].expand(-1, -1, patches.shape[-1]))
            after = len(PREFIX) + (kept if contiguous else PATCHES)
            places = torch.arange(kept, device=device).expand(pages, -1) if contiguous else batch.kept
            start = torch.arange(len(PREFIX), device=device).expand(pages, -1)
            position = torch.cat([start, len(PREFIX) + places, after + batch.position], 1)
            embed = core.language_model.embed_tokens
            prefix = embed(torch.tensor(PREFIX, device=device)).expand(pages, -1, -1)
            inputs = torch.cat([prefix.to(chosen.dtype), chosen, embed(batch.ids).to(chosen.dtype)], 1)
            states = core.language_model(
                inputs_embeds=inputs, position_ids=position, use_cache=False, packing=packing
            ).last_hidden_state[:, len(PREFIX) + kept :]
            logits = self.model.lm_head(states[answers.b, answers.q]).float()
        answer = F.cross_entropy(logits, answers.goal)
        align = alignment_loss(patches, embed.weight, batch.targets)
        loss = answer + 0.3 * align
        numbers = {"answer": answer.item(), "align": align.item()}
        if hints > 0:
            losses = {
                hint.name: hint_loss(hint, rows, packing)
                for hint in HINTS
                if len(rows := batch.roles[int(hint.name[-1])] if "role" in hint.name else getattr(batch, hint.name))
            }
            loss = loss + hints * torch.stack(list(losses.values())).sum()
            numbers |= {f"hint_{name}": value.item() for name, value in losses.items()}
        if self.train_vision:
            seeing, seen_numbers = self.vision_heads(features, seen.pooler_output, batch.targets)
            loss = loss + 0.3 * seeing
            numbers |= {f"patch_{k}": seen_numbers[k] for k in ("word", "number", "key")}
        return loss, numbers | _right(batch, logits)


def _right(batch: Batch, logits: Tensor) -> dict[str, float]:
    """The share of each skill's questions whose answer is right as a whole, each token given those before it."""
    wrong = (logits.argmax(-1) != batch.answers.goal).cpu().numpy()
    whole = np.bincount(batch.whose, wrong, len(batch.skill)) == 0
    return {
        skill: float(whole[batch.skill == i].mean()) if (batch.skill == i).any() else float("nan")
        for i, skill in enumerate(SKILLS)
    }


def train_language(
    model: Any,
    vision_heads: VisionHeads,
    stage: Stage,
    pages_per_step: int,
    visual_tokens: int | None,
    hints: Callable[[int], float],
    train_vision: bool,
    folder: Path,
    workers: Workers,
    resume: bool,
    report: Callable[[Stage, int, str | None], None],
) -> None:
    """One language stage; `hints(step)` is the weight of the hints."""
    attention.register()
    model.set_attn_implementation(attention.NAME)
    one_step = LanguageStep(model, vision_heads, train_vision)

    def losses(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = make_batch(generator(stage, step, workers), pages_per_step // workers.count, visual_tokens)
        contiguous = visual_tokens is not None and step % 2 == 0
        return one_step(moved(batch, workers.device), hints(step), contiguous)

    seeing = [*model.model.vision_tower.parameters(), *vision_heads.parameters()]
    known = {id(p) for p in seeing}
    reading = [p for p in model.parameters() if id(p) not in known]
    modules = nn.ModuleDict({"model": model, "vision_heads": vision_heads})
    train(stage, modules, [reading, seeing] if train_vision else [reading], losses, folder, workers, resume, report)
