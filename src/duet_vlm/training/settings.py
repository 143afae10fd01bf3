"""What `duet train` is told: one YAML file, checked before anything is loaded."""

# ruff: noqa: RUF009 (setting and group make dataclass fields)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.settings import check_names
from ..errors import DuetError
from ..inputs.text_files import read_yaml
from ..presets import DuetConfig, preset, stages
from .fields import FLAG, MAPPING, TEXT, TEXTS, choice, group, number, read, setting, whole


@dataclass(frozen=True)
class Compression:
    """The method and its budget.

    Attributes:
        method: a name that `presets.preset` knows, "none", or "settings" for the fields under `settings` alone.
        tokens, keep: the budget of a preset: visual tokens per image and layer on average, or a fraction.
        settings: fields of `DuetConfig`: all of them for method "settings", changes to the preset for the others.
        schedule: "constant", or "linear" from full tokens down to the budget.
        falling: the part of all steps over which a linear budget falls.
    """

    method: str = setting(TEXT, "duet")
    tokens: float | None = setting(number(0, above=True), None)
    keep: float | None = setting(number(0, 1, above=True), None)
    settings: dict[str, Any] | None = setting(MAPPING, None)
    schedule: str = setting(choice("constant", "linear"), "constant")
    falling: float = setting(number(0, 1, above=True), 0.3)

    def __post_init__(self) -> None:
        if self.method != "settings":
            stages(self.method)
        budgets = sum(x is not None for x in (self.tokens, self.keep))
        if self.method in ("none", "settings") and budgets:
            raise DuetError(f"compression.method {self.method!r} takes no budget: leave out tokens and keep.")
        if self.method not in ("none", "settings") and budgets != 1:
            raise DuetError(
                f"compression.method {self.method!r} needs one budget: give either tokens, an average per layer, or "
                "keep, a fraction."
            )
        if self.method == "none" and self.settings:
            raise DuetError("compression.method 'none' compresses nothing: leave out settings, or use another method.")
        if self.method == "settings" and not self.settings:
            raise DuetError("compression.method 'settings' needs compression.settings, the fields of a DuetConfig.")

    def config(self, model_config: Any) -> DuetConfig:
        """The compression at its full strength, for a model's config.

        Raises:
            ValueError: an unknown field, a wrong value, or a budget out of reach on this model.
        """
        changes = self.settings or {}
        check_names(changes)  # `name` and `keep` would be a preset's own arguments
        if self.method == "settings":
            return DuetConfig.from_dict(changes)
        return preset(self.method, model=model_config, tokens=self.tokens, keep=self.keep, **changes)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters by PEFT.

    Attributes:
        targets: names or one regular expression of the layers; by default every projection of the language model.
        projector: train the multimodal projector too, in full.
        merge: write a merged model beside the adapter at the end.
    """

    rank: int = setting(whole(1), 64)
    alpha: float = setting(number(0, above=True), 128.0)
    dropout: float = setting(number(0, 1), 0.0)
    targets: tuple[str, ...] | None = setting(TEXTS, None)
    projector: bool = setting(FLAG, True)
    merge: bool = setting(FLAG, True, free=True)


@dataclass(frozen=True)
class Save:
    """Checkpoints, in steps.

    Attributes:
        every: steps between two checkpoints.
        keep: how many of the last ones stay.
    """

    every: int = setting(whole(1), 500, free=True)
    keep: int = setting(whole(1), 2, free=True)


@dataclass(frozen=True)
class TrainSettings:
    """All of it. `docs/training.md` lists the settings with their meanings."""

    model: str = setting(TEXT)
    data: tuple[str, ...] = setting(TEXTS)
    output: str = setting(TEXT, free=True)
    compression: Compression = group(Compression, required=True)
    image_folder: str | None = setting(TEXT, None)
    video_frames: int = setting(whole(1), 8)
    train: str = setting(choice("projector", "lora", "full"), "lora")
    tower: str = setting(choice("frozen", "trained"), "frozen")
    lora: Lora = group(Lora)
    batch_size: int = setting(whole(1), 4)
    accumulation: int = setting(whole(1), 1)
    group_by_length: bool = setting(FLAG, True)
    max_length: int | None = setting(whole(8), None)
    learning_rate: float = setting(number(0, above=True), 2e-4)
    schedule: str = setting(choice("cosine", "linear", "constant_with_warmup"), "cosine")
    warmup: float = setting(number(0, 1), 0.03)
    epochs: float | None = setting(number(0, above=True), None)
    steps: int | None = setting(whole(1), None)
    dtype: str | None = setting(choice("float32", "bfloat16"), None)
    bf16: bool = setting(FLAG, True)
    gradient_checkpointing: bool = setting(FLAG, True)
    save: Save = group(Save)
    log_every: int = setting(whole(1), 10, free=True)
    report: str = setting(choice("tensorboard", "wandb", "none"), "tensorboard", free=True)
    workers: int = setting(whole(0), 2, free=True)
    seed: int = setting(whole(0), 0)
    trainer: dict[str, Any] | None = setting(MAPPING, None)

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise DuetError(f"epochs {self.epochs:g} and steps {self.steps} are both a length: give one of them.")


def read_settings(file: Path) -> TrainSettings:
    """The settings in a YAML file.

    Raises:
        ValueError: no such file, no YAML, an unknown setting or a wrong value.
    """
    return read(TrainSettings, read_yaml(file, "config", "a YAML file, for example examples/train.yaml"))
