"""What `duet train` is told: one YAML file, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ..config.budget_rule import NONE, SETTINGS, Budget, is_file
from ..config.settings import Settings
from ..config.values import check_names
from ..errors import DuetError
from ..inputs.choice import option_names
from ..inputs.text_files import read_yaml
from ..presets import DuetConfig, preset, stages
from .fields import EmptyIfNothing, Number, Strict, Text, Texts, read

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# what may change when a run is resumed: no loss depends on it
FREE: Any = {"output": True, "save": True, "log_every": True, "report": True, "workers": True, "lora": {"merge"}}


class Compression(Strict):
    """The method and its budget.

    Attributes:
        method: a name that `presets.preset` knows, "none", a file that `duet tune` wrote, or "settings" for the fields
            under `settings` alone.
        tokens, keep: the budget of a preset: visual tokens per image and layer on average, or a fraction.
        settings: fields of `DuetConfig`: all of them for method "settings", changes to the preset for the others.
        schedule: "constant", or "linear" from full tokens down to the budget.
        falling: the part of all steps over which a linear budget falls.
    """

    method: Text = "duet"
    tokens: Number | None = Field(default=None, gt=0)
    keep: Number | None = Field(default=None, gt=0, le=1)
    settings: dict[str, Any] | None = None
    schedule: Literal["constant", "linear"] = "constant"
    falling: Number = Field(default=0.3, gt=0, le=1)

    @model_validator(mode="after")
    def _one_budget(self) -> Compression:
        if self.method != SETTINGS and not is_file(self.method):
            stages(self.method)
        with option_names("compression."):
            Budget.parse(self.method, self.tokens, self.keep)
        if self.method == NONE and self.settings:
            raise DuetError("compression.method 'none' compresses nothing: leave out settings, or use another method.")
        if self.method == SETTINGS and not self.settings:
            raise DuetError("compression.method 'settings' needs compression.settings, the fields of a DuetConfig.")
        return self

    def config(self, model_config: PreTrainedConfig) -> DuetConfig:
        """The compression at its full strength, for a model's config.

        Raises:
            ValueError: an unknown field, a wrong value, or a budget out of reach on this model.
        """
        changes = self.settings or {}
        # `name` and `keep` would be a preset's own arguments
        check_names(changes, [one.name for one in fields(Settings)])
        if is_file(self.method):
            return replace(DuetConfig.load(self.method), **changes)
        if self.method == SETTINGS:
            return DuetConfig.from_dict(changes)
        return preset(self.method, model=model_config, tokens=self.tokens, keep=self.keep, **changes)


class Lora(Strict):
    """Low-rank adapters by PEFT.

    Attributes:
        targets: names or one regular expression of the layers; by default every projection of the language model.
        projector: train the multimodal projector too, in full.
        merge: write a merged model beside the adapter at the end.
    """

    rank: int = Field(default=64, ge=1)
    alpha: Number = Field(default=128.0, gt=0)
    dropout: Number = Field(default=0.0, ge=0, le=1)
    targets: Texts | None = None
    projector: bool = True
    merge: bool = True


class Save(Strict):
    """Checkpoints, in steps.

    Attributes:
        every: steps between two checkpoints.
        keep: how many of the last ones stay.
    """

    every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)


class TrainSettings(Strict):
    """All of it. `docs/training.md` lists the settings with their meanings."""

    model: Text
    data: Texts
    output: Text
    compression: Annotated[Compression, EmptyIfNothing]
    image_folder: Text | None = None
    video_frames: int = Field(default=8, ge=1)
    train: Literal["projector", "lora", "full"] = "lora"
    tower: Literal["frozen", "trained"] = "frozen"
    lora: Annotated[Lora, EmptyIfNothing] = Lora()
    batch_size: int = Field(default=4, ge=1)
    accumulation: int = Field(default=1, ge=1)
    group_by_length: bool = True
    max_length: int | None = Field(default=None, ge=8)
    learning_rate: Number = Field(default=2e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Number = Field(default=0.03, ge=0, le=1)
    epochs: Number | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "bfloat16"] | None = None
    bf16: bool = True
    gradient_checkpointing: bool = True
    save: Annotated[Save, EmptyIfNothing] = Save()
    log_every: int = Field(default=10, ge=1)
    report: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    workers: int = Field(default=2, ge=0)
    seed: int = Field(default=0, ge=0)
    trainer: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.epochs is not None and self.steps is not None:
            raise DuetError(f"epochs {self.epochs:g} and steps {self.steps} are both a length: give one of them.")
        return self


def read_settings(file: Path) -> TrainSettings:
    """The settings in a YAML file.

    Raises:
        ValueError: no such file, no YAML, an unknown setting or a wrong value.
    """
    return read(TrainSettings, read_yaml(file, "config", "a YAML file, for example examples/train.yaml"))
