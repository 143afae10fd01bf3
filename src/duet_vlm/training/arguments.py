"""Settings as the Trainer's `TrainingArguments`, and a check of what is passed on to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, Union, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import DuetError, shown
from .fields import members, must_be, nearest
from .settings import TrainSettings

# set by a setting of ours
OURS = {
    "output_dir": "output", "per_device_train_batch_size": "batch_size", "gradient_accumulation_steps": "accumulation",
    "learning_rate": "learning_rate", "lr_scheduler_type": "schedule", "warmup_steps": "warmup",
    "num_train_epochs": "epochs", "max_steps": "steps", "bf16": "bf16",
    "gradient_checkpointing": "gradient_checkpointing", "activation_checkpointing": "gradient_checkpointing",
    "save_steps": "save.every", "save_strategy": "save.every", "save_total_limit": "save.keep",
    "logging_steps": "log_every", "logging_strategy": "log_every", "report_to": "report", "seed": "seed",
    "train_sampling_strategy": "group_by_length", "dataloader_num_workers": "workers",
    "resume_from_checkpoint": "--resume",
}  # fmt: skip
# what training with `duet train` rests on, or has no use for
REFUSED = {
    "data_seed", "remove_unused_columns", "label_names", "length_column_name", "ignore_data_skip", "save_only_model",
    "restore_callback_states_from_checkpoint", "auto_find_batch_size", "dataloader_drop_last", "do_train", "do_eval",
    "do_predict", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "include_for_metrics",
    "prediction_loss_only", "per_device_eval_batch_size", "batch_eval_metrics", "label_smoothing_factor",
    "include_num_input_tokens_seen", "torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel",
    "liger_kernel_config", "enable_jit_checkpoint", "local_rank", "save_on_each_node", "train_batch_size",
}  # fmt: skip


# what a machine without the GPU to train on refuses
ELSEWHERE = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None}


def training_arguments(settings: TrainSettings, tell: Callable[[str], Any] | None = None) -> Any:
    """The Trainer's arguments.

    Args:
        settings: of the run.
        tell: told what depends on the device to train on, where settings are only checked, perhaps elsewhere; None
            where training begins, and such a thing is refused.

    Raises:
        ValueError: an option under `trainer` that is unknown, set elsewhere or of no use, or a value it refuses.
    """
    from transformers import TrainingArguments

    passed = settings.trainer or {}
    known = {f.name for f in fields(TrainingArguments) if f.init}
    offered = sorted(n for n in known - OURS.keys() - REFUSED if not n.startswith(("eval_", "push_to", "hub_")))
    hints = get_type_hints(TrainingArguments)
    for name, value in passed.items():
        if name in OURS:
            raise DuetError(f"setting 'trainer.{name}' is set by {OURS[name]!r}: give it there.")
        if name not in known:
            raise DuetError(f"setting 'trainer.{name}' is unknown: {nearest(name, offered)}.")
        if name not in offered:
            raise DuetError(f"setting 'trainer.{name}' has no use in duet train: leave it out.")
        hint = in_yaml(hints[name])
        try:
            TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            raise DuetError(f"setting trainer.{name} must be {must_be(hint)}, not {shown(value)}.") from error
    ours: dict[str, Any] = {
        "output_dir": settings.output,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "num_train_epochs": settings.epochs or 1.0,
        "max_steps": settings.steps or -1,
        "bf16": settings.bf16,
        "activation_checkpointing": settings.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": settings.save.every,
        "save_total_limit": settings.save.keep,
        "logging_steps": settings.log_every,
        "report_to": settings.report,
        "seed": settings.seed,
        "dataloader_num_workers": settings.workers,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "ddp_timeout": 7200,  # the other processes wait while the first checks the data
    }
    try:
        arguments = TrainingArguments(**(ours | passed))
    except (TypeError, ValueError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        refusal = DuetError(f"the Trainer refuses these settings ({reason}): change them.")
        if tell is None:
            raise refusal from error
        try:
            arguments = TrainingArguments(**(ours | passed | ELSEWHERE))
        except (TypeError, ValueError, ImportError):
            raise refusal from error
        tell(f"on this machine the Trainer would refuse these settings ({reason})")
    if arguments.n_gpu > 1:
        several = (
            f"one process sees {arguments.n_gpu} GPUs: start one for each with accelerate launch --no_python duet "
            "train ..., or choose one with CUDA_VISIBLE_DEVICES."
        )
        if tell is None:
            raise DuetError(several)
        tell(several.rstrip("."))
    return arguments


def in_yaml(hint: Any) -> Any:
    """A type of a `TrainingArguments` option as YAML can write it: an enum's member, or an object, is a text there."""
    plain = (int, float, bool, str, dict, NoneType)
    kinds = []
    for member in members(hint):
        kind = get_origin(member) or member
        kinds.append(list if kind is list else member if kind in plain or kind is Literal else str)
    return Union[tuple(kinds)]  # noqa: UP007 (of types known only here)
