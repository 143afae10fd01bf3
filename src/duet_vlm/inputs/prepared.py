"""What `duet run` was asked, and what was read and encoded for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..presets import DuetConfig
from .choice import Chosen
from .model_folders import DEMO
from .video.decoding import Clip

if TYPE_CHECKING:
    from transformers import ProcessorMixin

DEFAULT_KEEP = 1 / 3


@dataclass(frozen=True)
class Request:
    """What was asked on the command line; see `duet run --help`.

    Attributes:
        media: a picture, or a video by its ending.
        model: a folder, a hub id, or "demo" for the demonstration model.
        method: if None and there is no budget, the settings that the model brings, or "duet".
        frames: how many frames of a video; if None, as many as its model takes by itself; "auto" for as many as cost
            what these cost without compression.
        coverage, history: as the options of these names.
    """

    media: Path
    ask: str
    model: str = DEMO
    method: str | None = None
    tokens: float | None = None
    keep: float | None = None
    show: Path | None = None
    compare: bool = False
    dtype: str = "auto"
    device: str | None = None
    max_new_tokens: int = 64
    frames: int | str | None = None
    coverage: float | None = None
    history: float | None = None


@dataclass
class Prepared:
    """A request whose every part has been found good.

    Attributes:
        image: the PIL picture, or
        clip: the frames of the video.
        notes: a sentence for each thing that the user should know before the answer.
    """

    request: Request
    image: Any
    clip: Clip | None
    chosen: Chosen
    model: Any
    processor: ProcessorMixin
    inputs: Any
    unknown_words: list[str]
    notes: list[str]

    @property
    def config(self) -> DuetConfig:
        return self.chosen.config
