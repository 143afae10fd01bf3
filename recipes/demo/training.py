"""Train the demonstration model from scratch: vision, warm-up with attention hints, full.

Everything is a function of the settings below and the number of processes; see the model card for measured minutes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duet_vlm.demo.model import TEXT_WIDTH, VISION_WIDTH, VISUAL_TOKENS, config
from duet_vlm.errors import DuetError

if TYPE_CHECKING:
    from rich.progress import TaskID
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    from recipes.demo.distributed import Workers
    from recipes.demo.loop import Stage


_STEPS = ("vision_steps", "again_steps", "warmup_steps", "few_steps", "full_steps")


@dataclass(frozen=True)
class Recipe:
    """Steps and scenes per step (over all processes) of each stage; the defaults made the shipped weights.

    The vision stage runs twice, the second time with a higher peak rate and smaller batches.

    The hints fall from weight 1 towards 0 in the few stage; in the full stage, with the tally among them, they fall
    from 1 to 0 over its first half.  Its first ninth sees `few_tokens` of the 196 visual tokens too.

    `keeps`: budgets of the full stage, fractions of the 196 visual tokens, in turn from step to step; below 1, both
    stages of compression are on (preset "duet"), from the first step.
    """

    vision_steps: int = 1500
    vision_scenes: int = 48
    again_steps: int = 2200
    again_scenes: int = 32
    warmup_steps: int = 700
    warmup_scenes: int = 16
    warmup_tokens: int = 32
    few_steps: int = 500
    few_scenes: int = 16
    few_tokens: int = 96
    full_steps: int = 1800
    full_scenes: int = 16
    keeps: tuple[float, ...] = (1.0,)
    seed: int = 0
    save_every: int = 100

    def scaled(self, factor: float) -> Recipe:
        """The same recipe with all step counts multiplied by `factor` (at least one step each)."""
        steps = {n: max(1, round(getattr(self, n) * factor)) for n in _STEPS}
        return Recipe(**{**self.__dict__, **steps})

    def stages(self) -> tuple[Stage, ...]:
        """The stages as the training loop takes them."""
        from recipes.demo.loop import Stage

        return (
            Stage("vision", 1, self.vision_steps, (1e-3,), save_every=self.save_every),
            Stage("vision_again", 4, self.again_steps, (1.5e-3,), save_every=self.save_every),
            Stage("warmup", 2, self.warmup_steps, (1.5e-3,), 100, floor=0.2, save_every=self.save_every),
            Stage("few", 3, self.few_steps, (1e-3, 5e-4), horizon=22 * self.few_steps // 5, save_every=self.save_every),
            Stage("full", 5, self.full_steps, (7e-4, 2e-4), save_every=self.save_every),
        )


class Reporter:
    """A progress bar per stage on a terminal, lines elsewhere; silent in all but the first process."""

    def __init__(self, workers: Workers) -> None:
        self.first = workers.first
        self.bars: dict[str, TaskID] = {}
        self.progress = None
        if workers.first and sys.stdout.isatty():
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            self.progress = Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
            self.progress.start()

    def __call__(self, stage: Stage, done: int, text: str | None) -> None:
        if not self.first:
            return
        if self.progress is None:
            if text is not None:
                print(f"{stage.name} {done}/{stage.steps} {text}", flush=True)
            return
        if stage.name not in self.bars:
            self.bars[stage.name] = self.progress.add_task(stage.name, total=stage.steps)
        self.progress.update(self.bars[stage.name], completed=done)
        if text is not None:
            self.progress.console.print(f"[dim]{stage.name} {done}: {text}")

    def close(self) -> None:
        """End the progress display."""
        if self.progress is not None:
            self.progress.stop()


def compile_blocks(model: LlavaForConditionalGeneration) -> None:
    """Fuse the decoder's norms and MLPs (a third of a step's time); needs a C++ compiler."""
    for layer in model.model.language_model.layers:
        for block in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
            block.compile()


def finished(folder: Path, stage: Stage) -> dict | None:
    """The checkpoint of a stage that has run to its end, else None."""
    import torch

    path = folder / f"{stage.name}.pt"
    if not path.exists():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return saved["modules"] if saved["step"] >= stage.steps else None


def _run(workers: Workers, folder: Path, recipe: Recipe, resume: bool, compiled: bool, start: Path | None) -> None:
    """All stages in one worker; with `resume`, finished stages are loaded and an unfinished one goes on.

    `start`: a checkpoint of the few stage, to run the full stage alone.
    """
    import torch
    from transformers import CLIPVisionModel, LlavaForConditionalGeneration

    from duet_vlm import DuetConfig
    from recipes.demo.language import LanguageHeads, init_decoder, train_language
    from recipes.demo.vision import VisionHeads, draw_scenes, init_positions, train_vision

    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(config().vision_config)  # type: ignore[arg-type]
    vision_heads = VisionHeads(VISION_WIDTH)
    model, heads = LlavaForConditionalGeneration(config()), LanguageHeads(TEXT_WIDTH)
    init_decoder(model)
    init_positions(tower)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    seeing = torch.nn.ModuleDict({"tower": model.model.vision_tower, "heads": vision_heads})
    everything = torch.nn.ModuleDict({"model": model, "heads": heads, "vision_heads": vision_heads})
    everything.to(workers.device)
    vision, again, warmup, few, full = stages = recipe.stages()
    report = Reporter(workers)
    done = {stage.name: finished(folder, stage) if resume else None for stage in stages}
    if start is not None:
        done["few"] = torch.load(start, map_location="cpu", weights_only=True)["modules"]
    if done["warmup"] is None and done["few"] is None:
        for stage, scenes in ((vision, recipe.vision_scenes), (again, recipe.again_scenes)):
            if (weights := done[stage.name]) is not None:
                seeing.load_state_dict(weights)
            elif stage is again or done["vision_again"] is None:
                train_vision(
                    model.model.vision_tower, vision_heads, draw_scenes, stage, scenes, folder, workers, resume, report
                )
    if compiled:
        compile_blocks(model)

    def language(
        stage: Stage,
        scenes: int,
        tokens: Callable[[int], int],
        hints: Callable[[int], float],
        tally: bool,
        see: bool,
        compression: Callable[[int], DuetConfig | None] = lambda _: None,
    ) -> None:
        if (weights := done[stage.name]) is not None:
            everything.load_state_dict(weights)
            return
        train_language(
            model, heads, vision_heads, stage, scenes, tokens, hints, tally, see, folder, workers, resume, report,
            compression,
        )  # fmt: skip

    if done["few"] is None:
        language(warmup, recipe.warmup_scenes, lambda _: recipe.warmup_tokens, lambda _: 1.0, False, False)
    third = (few.horizon or few.steps) / 3
    language(few, recipe.few_scenes, lambda _: recipe.few_tokens, lambda i: max(0.0, 1 - i / third), False, True)
    ninth, half = full.steps // 9, full.steps / 2
    budgets = [None if k == 1 else DuetConfig.preset("duet", model=model, keep=k) for k in recipe.keeps]
    short = recipe.few_tokens if recipe.keeps == (1.0,) else VISUAL_TOKENS
    language(full, recipe.full_scenes, lambda i: short if i < ninth else VISUAL_TOKENS,
             lambda i: max(0.0, 1 - i / half), True, True, lambda i: budgets[i % len(budgets)])  # fmt: skip
    report.close()


def export(checkpoint: Path, folder: Path) -> None:
    """Write the model of a language stage's checkpoint as a from_pretrained folder in bfloat16, with its processor."""
    from duet_vlm.demo.vocabulary import BOS, EOS, IDS, PAD, processor

    export_model(checkpoint, folder, config(), processor(), IDS[BOS], IDS[EOS], IDS[PAD], 4)


def export_model(
    checkpoint: Path, folder: Path, made: LlavaConfig, processor: LlavaProcessor, bos: int, eos: int, pad: int, new: int
) -> None:
    """The same for a model of another config; `new`: how many tokens an answer has at most."""
    import torch
    from transformers import GenerationConfig, LlavaForConditionalGeneration

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["modules"]
    model = LlavaForConditionalGeneration(made)
    model.load_state_dict({k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")})
    model.generation_config = GenerationConfig(
        bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, max_new_tokens=new, do_sample=False
    )
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written readable by its owner only
    processor.save_pretrained(folder)


def train(
    out: Path,
    recipe: Recipe,
    processes: int = 2,
    resume: bool = False,
    compiled: bool | None = None,
    start: Path | None = None,
) -> None:
    """Train into `out`: checkpoints and logs per stage in `out/checkpoints`, the finished model in `out`.

    On a machine with a GPU, one process trains there, whatever `processes` says; its numbers differ from the CPU's.
    `compiled` fuses parts of the decoder with torch.compile; None does so when a C++ compiler is found.
    `start` names a checkpoint of the few stage: the full stage alone is run, from there.

    Raises:
        DuetError: `out` holds a model or checkpoints already, and `resume` is not set.
    """
    from recipes.demo.distributed import launch

    checkpoints = out / "checkpoints"
    found = [file for file in (out / "config.json", *sorted(checkpoints.glob("*.pt"))) if file.exists()]
    if found and not resume:
        what = "a finished model" if found[0].name == "config.json" else f"an earlier run ({found[0].name})"
        raise DuetError(f"output {str(out)!r} holds {what}: go on with --resume, or choose another folder.")
    checkpoints.mkdir(parents=True, exist_ok=True)
    if compiled is None:
        compiled = shutil.which("g++") is not None
    launch(_run, processes, checkpoints, checkpoints, recipe, resume, compiled, start)
    export(checkpoints / "full.pt", out)
