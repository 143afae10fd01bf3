"""The Trainer of transformers, with checkpoints that are whole or not there, an order of samples that a resumed run
finds again, and progress in samples, tokens and visual tokens saved."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import rotate_checkpoints

from ..engine.handle import Duet
from ..errors import DuetError
from ..stage2.queries import IGNORED
from .progress import TrainingProgress

PART = ".saving"
LOSSES = "duet_loss.json"  # in a checkpoint: the losses of the steps that no log has told yet


class SaveError(DuetError, OSError):
    """A checkpoint could not be written; the earlier ones are whole."""


class GroupedByLength(Sampler[int]):
    """Samples of about the same length side by side; the order is a function of seed and epoch alone.

    Args:
        lengths: of all samples, in tokens.
        group: samples that shall be alike, those of one step.
        seed: of the order.
    """

    def __init__(self, lengths: list[int], group: int, seed: int):
        self.lengths, self.group, self.seed, self.epoch = lengths, group, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.group, generator=generator))


class DuetTrainer(Trainer):
    """The Trainer of `duet train`.

    Args:
        handle: the applied compression.
        lengths: tokens of every sample, to group them by; None for a random order.
        stamp: writes into a checkpoint's folder what a resumed run needs to know.
        options: as for `Trainer`.
    """

    def __init__(
        self, *, handle: Duet, lengths: list[int] | None, stamp: Callable[[Path], Any], **options: Any
    ) -> None:
        super().__init__(**options)
        self.handle, self.lengths, self.stamp = handle, lengths, stamp
        self.part: Path | None = None
        self.counted = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # samples, tokens
        self.since = time.perf_counter()
        self.told: dict[str, Any] | None = None
        self.add_callback(_LossesGoOn(self))

    # ---- losses ----

    def train(self, resume_from_checkpoint: Any = None, *more: Any, **options: Any) -> Any:
        """As `Trainer.train`; logged and final losses are those of all steps, the ones before a resume included."""
        file = Path(resume_from_checkpoint or "", LOSSES)
        self.told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        try:
            output = super().train(resume_from_checkpoint, *more, **options)
        finally:  # an error or Ctrl-C is told below the bar, not into it
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, TrainingProgress):
                    callback.stop()
        return output._replace(training_loss=output.metrics["train_loss"])

    # ---- order ----

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.lengths is None:
            return super()._get_train_sampler(train_dataset)
        group = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return GroupedByLength(self.lengths, group, self.args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights by `from_pretrained`: `save_pretrained` renames some, which the Trainer's own loading passes over."""
        network: Any = self.model
        if not isinstance(network, PreTrainedModel) or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # float32 holds every saved dtype exactly; each weight keeps the dtype it has
        saved = type(network).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        network.load_state_dict(saved.state_dict())

    # ---- progress ----

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        samples = (inputs["labels"] != IGNORED).any(1).sum()
        tokens = inputs["attention_mask"].sum()
        self.counted += torch.stack([samples, tokens]).to(self.counted)  # read on the host when logged, not before
        return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            now = time.perf_counter()
            total = self.accelerator.reduce(self.counted, "sum")
            samples, tokens = (total / (now - self.since)).tolist()
            logs |= {"samples_per_second": round(samples, 3), "tokens_per_second": round(tokens, 1)}
            logs |= tokens_saved(self.handle)
            self.counted, self.since = torch.zeros_like(self.counted), now
        if "train_loss" in logs:  # the Trainer divides by the steps since a resume
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # ---- checkpoints ----

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self.part is None else str(self.part)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint appears under its name when all of it is written, on every rank."""
        out, name = Path(super()._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        self.part = out / PART
        failure: Exception | None = None
        waiting = self.accelerator.reduce(self._tr_loss.clone(), "mean").item()
        losses = {"total": self._total_loss_scalar, "waiting": waiting, "logged": self._globalstep_last_logged}
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                self.stamp(self.part / name)
                (self.part / name / LOSSES).write_text(json.dumps(losses), encoding="utf-8")
        except Exception as error:  # whatever it is, the other ranks wait for this one
            failure = error
        finally:
            self.part = None
        failed = torch.tensor(float(failure is not None), device=self.args.device)
        if float(self.accelerator.reduce(failed, "sum")):  # every rank stops, not only the one whose disk is full
            if self.args.should_save:
                shutil.rmtree(out / PART, ignore_errors=True)
            if failure is not None and not of_the_disk(failure):
                raise failure
            raise SaveError(cannot_save(name, failure, out)) from failure
        if self.args.should_save:
            publish(out / PART / name, out / name)
            rotate_checkpoints(
                output_dir=str(out), save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=None, use_mtime=False,
            )  # fmt: skip
        self.accelerator.wait_for_everyone()


class _LossesGoOn(TrainerCallback):
    """Gives a Trainer that goes on the losses that its checkpoint had not logged yet, and the sum of the others."""

    def __init__(self, trainer: DuetTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if (told := self.trainer.told) is not None:
            self.trainer._tr_loss += told["waiting"]
            self.trainer._total_loss_scalar = told["total"]
            self.trainer._globalstep_last_logged = told["logged"]


def tokens_saved(handle: Duet) -> dict[str, float]:
    """The part of the visual tokens that the decoder's layers were spared, as measured on the last batch with one."""
    if not handle.compresses:
        return {"visual_tokens_saved": 0.0}
    trace = handle.trace
    samples = [s for s in trace.samples if s.visual] if trace is not None else []
    if not samples:
        return {}
    before = sum(len(s.visual) * len(s.tokens_per_layer) for s in samples)
    after = sum(sum(s.tokens_per_layer) for s in samples)
    return {"visual_tokens_saved": round(1 - after / before, 4)}


def publish(part: Path, target: Path) -> None:
    """Give a folder that is written to its end its name; what stood there goes only then."""
    old = part.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(part.parent, ignore_errors=True)


def of_the_disk(error: Exception) -> bool:
    """Whether it tells of a disk, which torch and safetensors do in classes of their own; all else is a bug."""
    written = isinstance(error, RuntimeError) and re.search("inline_container|PytorchStreamWriter", str(error))
    return isinstance(error, (OSError, SafetensorError)) or bool(written)


def cannot_save(name: str, error: Exception | None, out: Path) -> str:
    """One sentence on what is lost, what is not, and what to do."""
    reason = "another process failed" if error is None else (str(error).strip() or type(error).__name__)
    kept = sorted((p.name for p in out.glob("checkpoint-*")), key=lambda n: int(n.rpartition("-")[2]))
    last = f"{kept[-1]} is whole" if kept else "there is no earlier one"
    return (
        f"{name} could not be written ({reason.splitlines()[0].rstrip('.')}), {last}: free some space and run again "
        + ("with --resume." if kept else "from the start.")
    )
