"""What a training says while it runs: a bar on stderr, and a line of figures at every log on stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

# logged name -> how a line tells it
FIGURES = {
    "loss": "loss {:.4g}", "learning_rate": "learning rate {:.3g}", "grad_norm": "gradient norm {:.3g}",
    "samples_per_second": "{:.3g} samples/s", "tokens_per_second": "{:,.0f} tokens/s",
    "visual_tokens_saved": "{:.1%} of the visual tokens saved", "epoch": "epoch {:.4g}",
}  # fmt: skip


class TrainingProgress(TrainerCallback):
    """In place of the Trainer's own bar, which prints its figures as a dict of texts."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The bar, in the first process."""
        if not state.is_world_process_zero or args.disable_tqdm:
            return
        columns = [TextColumn("{task.description}"), *Progress.get_default_columns()[1:-1], TimeRemainingColumn()]
        self.bar = Progress(*columns, MofNCompleteColumn(), console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("Training", total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """A line of what was measured since the last one."""
        if state.is_world_process_zero and logs:
            print(line(logs, state.global_step, state.max_steps))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away, also where training ended early."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def line(logs: dict[str, Any], step: int, steps: int) -> str:
    """The figures of a log, or of the whole training."""
    if "train_loss" in logs:
        return f"{step} steps in {logs['train_runtime']:,.0f} s, mean loss {logs['train_loss']:.4g}"
    told = [text.format(logs[name]) for name, text in FIGURES.items() if name in logs]
    more = [f"{name} {value:.4g}" for name, value in logs.items() if name not in FIGURES and isinstance(value, float)]
    return f"step {step} of {steps}: {', '.join(told + more)}"
