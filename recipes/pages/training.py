"""Train the model for pages from scratch: vision, warm-up with attention hints, few tokens, all of them.

Everything is a function of the settings below and the number of processes. No stage compresses anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from duet_vlm.demo.model import VISION_WIDTH
from duet_vlm.errors import DuetError
from duet_vlm.pages.model import config
from recipes.demo.loop import Stage

if TYPE_CHECKING:
    from recipes.demo.distributed import Workers

_STEPS = ("vision_steps", "again_steps", "warmup_steps", "few_steps", "full_steps")


@dataclass(frozen=True)
class Recipe:
    """Steps and pages per step (over all processes) of each stage; the defaults made the shipped weights.

    The vision stage runs twice: numbers are read last, and a second cycle of the rate reads them.

    The hints have weight 1 in the warm-up, fall to 0.5 in the few stage, and from 0.5 to 0 over the first half of the
    full stage.
    """

    vision_steps: int = 3600
    vision_pages: int = 24
    again_steps: int = 1000
    again_pages: int = 24
    warmup_steps: int = 900
    warmup_pages: int = 16
    warmup_tokens: int = 64
    few_steps: int = 300
    few_pages: int = 16
    few_tokens: int = 160
    full_steps: int = 700
    full_pages: int = 16
    seed: int = 0
    save_every: int = 100

    def scaled(self, factor: float) -> Recipe:
        """The same recipe with all step counts multiplied by `factor` (at least one step each)."""
        return replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in _STEPS})

    def stages(self) -> tuple[Stage, ...]:
        """The stages as the training loop takes them."""
        return (
            Stage("vision", 11, self.vision_steps, (1.5e-3,), 100, save_every=self.save_every),
            Stage("vision_again", 15, self.again_steps, (1.3e-3,), 60, save_every=self.save_every),
            Stage("warmup", 12, self.warmup_steps, (1.5e-3,), 100, floor=0.3, save_every=self.save_every),
            Stage("few", 13, self.few_steps, (1e-3, 3e-4), floor=0.6, save_every=self.save_every),
            Stage("full", 14, self.full_steps, (7e-4, 2e-4), save_every=self.save_every),
        )


def _run(workers: Workers, folder: Path, recipe: Recipe, resume: bool, compiled: bool, until: str) -> None:
    """All stages in one worker, up to the one named; finished stages are loaded and an unfinished one goes on."""
    import torch
    from transformers import CLIPVisionModel, LlavaForConditionalGeneration

    from recipes.demo.language import init_decoder
    from recipes.demo.training import Reporter, compile_blocks, finished
    from recipes.demo.vision import init_positions, train_vision
    from recipes.pages.targets import SIDE
    from recipes.pages.vision import VisionHeads, draw_pages

    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(config().vision_config)  # type: ignore[arg-type]
    heads = VisionHeads(VISION_WIDTH)
    model = LlavaForConditionalGeneration(config())
    init_decoder(model)
    init_positions(tower, SIDE)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    seeing = torch.nn.ModuleDict({"tower": model.model.vision_tower, "heads": heads})
    everything = torch.nn.ModuleDict({"model": model, "vision_heads": heads})
    everything.to(workers.device)
    vision, again, *language = recipe.stages()
    report = Reporter(workers)
    done = {stage.name: finished(folder, stage) if resume else None for stage in recipe.stages()}
    if not any(done[stage.name] for stage in language):
        for stage, pages in ((vision, recipe.vision_pages), (again, recipe.again_pages)):
            if (seen := done[stage.name]) is not None:
                seeing.load_state_dict(seen)
            elif stage is again or done[again.name] is None:
                train_vision(model.model.vision_tower, heads, draw_pages, stage, pages, folder, workers, resume, report)
            if until == stage.name:
                return
    from recipes.pages.language import train_language

    if compiled:
        compile_blocks(model)
    warmup, few, full = language
    plans: tuple[tuple[Stage, int, int | None, Callable[[int], float]], ...] = (
        (warmup, recipe.warmup_pages, recipe.warmup_tokens, lambda step: 1.0),
        (few, recipe.few_pages, recipe.few_tokens, lambda step: 1 - 0.5 * step / few.steps),
        (full, recipe.full_pages, None, lambda step: max(0.0, 0.5 - step / full.steps)),
    )
    for stage, pages, tokens, hints in plans:
        if (weights := done[stage.name]) is not None:
            everything.load_state_dict(weights)
        else:
            train_language(
                model, heads, stage, pages, tokens, hints, stage is not warmup, folder, workers, resume, report
            )
        if until == stage.name:
            break
    report.close()


def export(checkpoint: Path, folder: Path) -> None:
    """Write the model of a language stage's checkpoint as a from_pretrained folder in bfloat16, with its processor."""
    from duet_vlm.demo.vocabulary import BOS, EOS, PAD
    from duet_vlm.pages.model import processor
    from duet_vlm.pages.vocabulary import IDS
    from recipes.demo.training import export_model

    export_model(checkpoint, folder, config(), processor(), IDS[BOS], IDS[EOS], IDS[PAD], 6)


def train(
    out: Path, recipe: Recipe, processes: int = 2, resume: bool = False, compiled: bool | None = None, until: str = ""
) -> None:
    """Train into `out`: checkpoints and logs per stage in `out/checkpoints`, the finished model in `out`.

    `compiled` fuses parts of the decoder with torch.compile; None does so when a C++ compiler is found.
    `until` names the stage to stop after.

    Raises:
        DuetError: `out` holds a model or checkpoints already, and `resume` is not set.
    """
    import shutil

    from recipes.demo.distributed import launch

    checkpoints = out / "checkpoints"
    if not resume and any(checkpoints.glob("*.pt")):
        raise DuetError(f"output {str(out)!r} holds an earlier run: go on with --resume, or choose another folder.")
    checkpoints.mkdir(parents=True, exist_ok=True)
    if compiled is None:
        compiled = shutil.which("g++") is not None
    launch(_run, processes, checkpoints, checkpoints, recipe, resume, compiled, until)
    if until in ("", "full"):
        export(checkpoints / "full.pt", out)
