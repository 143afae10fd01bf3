"""`duet train` from its settings to what it leaves behind, the cheap checks first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..applying import apply
from ..errors import DuetError
from ..families import facts_of
from ..inputs.checkpoints import read_config, read_processor
from ..inputs.files import check_writable_folder, writing
from ..presets import DuetConfig
from . import models, resuming
from .arguments import training_arguments
from .checking import Broken, Checked, Checker, check_records, data_key
from .conversations import Renderer
from .dataset import Collator, Conversations
from .progress import TrainingProgress
from .records import conversation, read_records
from .schedule import Budget, BudgetSchedule
from .settings import TrainSettings
from .trainer import PART, DuetTrainer, SaveError, cannot_save, of_the_disk, publish

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Bar = Callable[[int], AbstractContextManager[Callable[[int], Any]]]


class BrokenRecords(DuetError):
    """Records that cannot be trained on, and no leave to go on without them."""

    def __init__(self, broken: list[Broken], total: int):
        self.broken = broken
        super().__init__(
            f"{len(broken)} of {total} records are broken: put them right, or go on without them with --skip-broken."
        )


@dataclass
class TrainingRun:
    """What is known before the model is loaded.

    Attributes:
        arguments: the Trainer's.
        model_config: the model's.
        full: the compression at full strength.
        checked: what the data check found.
        dataset: the records trained on.
        checkpoint: to go on from, or None.
        stamp: what checkpoints are told apart by.
    """

    settings: TrainSettings
    arguments: Any
    model_config: PreTrainedConfig
    full: DuetConfig
    budget: Budget
    renderer: Renderer
    checked: Checked
    dataset: Conversations
    checkpoint: Path | None
    stamp: dict[str, Any]


def prepare_training(
    settings: TrainSettings,
    resume: bool,
    skip_broken: bool,
    bar: Bar,
    fresh: bool = False,
    tell: Callable[[str], Any] | None = None,
) -> TrainingRun:
    """Read and check everything but the weights.

    Args:
        settings: of the run.
        resume: go on from the last checkpoint in the output folder.
        skip_broken: train without the records that are broken.
        bar: shows how far the check of the records is.
        fresh: check the records even where an earlier check of the same files is known.
        tell: see `training_arguments`.

    Raises:
        BrokenRecords: with the list of them.
        ValueError: one sentence that says what to put right.
    """
    output = Path(settings.output).expanduser()
    check_writable_folder(output, "the trained model")
    arguments = training_arguments(settings, tell)
    checkpoint = resuming.last_checkpoint(output)
    if resume and checkpoint is None:
        raise DuetError(f"output {settings.output!r} holds no checkpoint: leave out --resume to start.")
    if not resume and checkpoint is not None and not fresh:
        raise DuetError(
            f"output {settings.output!r} holds {checkpoint.name} of an earlier run: go on with --resume, or choose "
            "another folder."
        )
    model_config = read_config(settings.model)
    facts = facts_of(model_config)
    full = settings.compression.config(model_config)
    falling = settings.compression.falling if settings.compression.schedule == "linear" else 0.0
    budget = Budget(full, facts.visual_tokens, facts.layers, falling)
    renderer = Renderer(read_processor(settings.model))
    records = read_records(settings.data)
    folder = None if settings.image_folder is None else Path(settings.image_folder).expanduser()
    if folder is not None and not folder.is_dir():
        raise DuetError(f"image_folder {settings.image_folder!r} is no folder: give the one that paths start from.")

    def check() -> Checked:
        key = data_key(settings.data, settings.image_folder, settings.max_length, str(renderer.template))
        known = Checked.read(output, key)
        if known is not None and not fresh and (resume or not known.broken):
            return known
        checker = Checker(renderer, folder, settings.max_length, settings.video_frames)
        with bar(len(records)) as advance:
            checked = check_records(records, checker, settings.workers, advance)
        with writing(output, "the list of records"):
            checked.write(output, key)
        return checked

    with arguments.main_process_first(desc="checking the data"):  # the others read what the first one found
        checked = check()
    if checked.broken and not skip_broken:
        raise BrokenRecords(checked.broken, len(records))
    if not checked.good:
        raise DuetError(f"all {len(records)} records are broken: nothing is left to train on.")
    listed = [conversation(records[i].data, folder) for i in checked.good]
    stamp = resuming.stamp(settings, model_config, checked.digest, arguments.world_size)
    if checkpoint is not None and resume:
        resuming.check_checkpoint(checkpoint, stamp)
    dataset = Conversations(listed, renderer, settings.video_frames)
    return TrainingRun(settings, arguments, model_config, full, budget, renderer, checked, dataset, checkpoint, stamp)


def trainer_of(run: TrainingRun) -> DuetTrainer:
    """The model, compressed, in its Trainer.

    Raises:
        ValueError: the model cannot be read or does not fit the settings.
    """
    settings, arguments = run.settings, run.arguments
    sharded = bool(arguments.fsdp) or arguments.deepspeed_plugin is not None or _launched_sharded()
    if sharded and settings.train == "lora" and settings.lora.merge:
        raise DuetError("lora.merge cannot put sharded weights together: set it to false and merge afterwards.")
    from transformers import PrinterCallback, ProgressCallback, set_seed

    set_seed(settings.seed)
    model = models.load(settings, sharded)
    processor = run.renderer.processor
    handle = apply(model, run.full, tokenizer=processor, full_logits=False)
    trainer = DuetTrainer(
        handle=handle,
        lengths=run.checked.lengths if settings.group_by_length else None,
        stamp=lambda folder: (folder / resuming.FILE).write_text(json.dumps(run.stamp, indent=2), encoding="utf-8"),
        model=model,
        args=arguments,
        data_collator=Collator(processor, settings.max_length),
        train_dataset=run.dataset,
        processing_class=processor,
        callbacks=[BudgetSchedule(handle.use, run.budget), TrainingProgress()],
    )
    for shown in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shown)
    return trainer


def train(run: TrainingRun) -> Path:
    """Train, and save: OUTPUT/model is a folder for from_pretrained, OUTPUT/adapter the adapter of `train: lora`.

    Raises:
        SaveError: a checkpoint could not be written.
    """
    output = Path(run.settings.output).expanduser()
    trainer = trainer_of(run)
    if run.arguments.should_save:
        shutil.rmtree(output / PART, ignore_errors=True)
    trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
    try:
        return save(run, trainer, output)
    except Exception as error:
        shutil.rmtree(output / PART, ignore_errors=True)
        if not of_the_disk(error):
            raise
        raise SaveError(cannot_save("the trained model", error, output)) from error


def finished(run: TrainingRun) -> Path | None:
    """What an earlier run left when it was through; None where there is something left to do."""
    if run.checkpoint is None:
        return None
    state = json.loads((run.checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    output, settings = Path(run.settings.output).expanduser(), run.settings
    lora = settings.train == "lora"
    left = [output / "adapter"] if lora else []
    left += [output / "model"] if not lora or settings.lora.merge else []
    through = state["global_step"] >= state["max_steps"] and all(folder.is_dir() for folder in left)
    return left[-1] if through else None


def save(run: TrainingRun, trainer: DuetTrainer, output: Path) -> Path:
    """Write what was trained; each folder appears when it is whole."""
    lora = run.settings.train == "lora"
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    target = output / ("adapter" if lora else "model")
    part = output / PART / target.name
    trainer.save_model(str(part))
    if run.arguments.should_save:
        (part / "training_args.bin").unlink(missing_ok=True)  # a pickle, of no use to whoever loads the model
        if lora:
            (part / "duet.json").write_text(json.dumps(run.full.to_dict(), indent=2), encoding="utf-8")
        publish(part, target)
        if lora and run.settings.lora.merge:
            target = output / "model"
            part = output / PART / target.name
            models.merge_adapters(trainer.accelerator.unwrap_model(trainer.model)).save_pretrained(part)
            run.renderer.processor.save_pretrained(part)
            publish(part, target)
    trainer.accelerator.wait_for_everyone()
    return target


def _launched_sharded() -> bool:
    import os

    return any(os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true" for kind in ("FSDP", "DEEPSPEED"))
