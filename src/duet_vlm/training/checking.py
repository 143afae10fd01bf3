"""The data set is checked before anything is trained: every broken record with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from .. import host
from ..errors import DuetError
from ..inputs.files import write_whole
from ..inputs.images import read_image, size_of
from ..inputs.plain_data import digest
from ..stage2.queries import IGNORED
from .conversations import Rendered, Renderer
from .dataset import Collator, Loaded, answer_tokens, read_video
from .records import Conversation, RawRecord, conversation

FILE = "records.json"


@dataclass(frozen=True)
class Broken:
    """A record that cannot be trained on: its file, its index there, and why."""

    file: str
    index: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, record {self.index}: {self.reason}"


@dataclass(frozen=True)
class Checked:
    """What the check found.

    Attributes:
        good: places in the list of all records.
        lengths: tokens of each good one, its images' and videos' included.
        broken: the others.
    """

    good: list[int]
    lengths: list[int]
    broken: list[Broken]

    @property
    def digest(self) -> str:
        """Which records are good, in short."""
        return digest(self.good)[:16]

    def write(self, folder: Path, key: str) -> None:
        """Leave the findings in a run's folder, for the other processes and for a resumed run."""
        folder.mkdir(parents=True, exist_ok=True)
        broken = [vars(b) for b in self.broken]
        text = json.dumps({"key": key, "good": self.good, "lengths": self.lengths, "broken": broken})
        write_whole(folder / FILE, text, "the list of records")

    @classmethod
    def read(cls, folder: Path, key: str) -> Checked | None:
        """What an earlier check of the same data found, if there is one."""
        try:
            data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if data.get("key") != key:
            return None
        return cls(data["good"], data["lengths"], [Broken(**b) for b in data["broken"]])


def data_key(files: tuple[str, ...], image_folder: str | None, max_length: int | None, template: str) -> str:
    """What a check's findings hold for: files by size and time of change, and how they are read."""
    stats = [(file, Path(file).expanduser().stat()) for file in files]
    parts = [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats]
    return digest([parts, image_folder, max_length, template])


class Checker:
    """Checks one record after another.

    Args:
        renderer: the model's chat template.
        folder: where relative paths of images and videos start.
        max_length: of a conversation, in tokens.
        video_frames: frames read from a video.
    """

    def __init__(self, renderer: Renderer, folder: Path | None, max_length: int | None, video_frames: int):
        self.renderer, self.folder, self.max_length = renderer, folder, max_length
        self.processor: Any = renderer.processor
        # an image is asked about many times, and many are of one size
        self.probed: dict[Path, tuple[int, int] | str] = {}
        self.taken: dict[tuple[int, int], str | None] = {}
        self.video = lru_cache(maxsize=4)(partial(read_video, count=video_frames))

    def __call__(self, record: RawRecord) -> tuple[int, str | None]:
        """Its length in tokens, and why it is broken or None."""
        try:
            return self.length(conversation(record.data, self.folder)), None
        except DuetError as error:
            return 0, str(error)

    def length(self, chosen: Conversation) -> int:
        """Tokens of a conversation.

        Raises:
            ValueError: why it is broken.
        """
        sizes = [self.probe(path) for path in chosen.images]
        rendered = self.renderer(chosen.messages)
        for kind, paths in (("image", chosen.images), ("video", chosen.videos)):
            token = getattr(self.processor, f"{kind}_token", None)
            if token is not None and rendered.text.count(token) != len(paths):
                raise DuetError(f"its text holds {rendered.text.count(token)} {kind} tokens for {len(paths)} {kind}s")
        if chosen.videos:
            return self.length_with_videos(rendered, chosen)
        tokenized = self.renderer.tokenizer(rendered.text, return_offsets_mapping=True, return_tensors="pt")
        ids, answers = tokenized["input_ids"][0], answer_tokens(tokenized["offset_mapping"][0], rendered.answers)
        if not answers.any():
            raise DuetError("all its labels are masked: its answers are empty")
        places = (ids == getattr(self.processor, "image_token_id", -1)).nonzero()[:, 0].tolist()
        if len(places) != len(chosen.images):
            raise DuetError(f"its text holds {len(places)} image tokens for {len(chosen.images)} images")
        tokens = self.image_tokens(sizes)
        added = sum(tokens) - len(tokens)
        if self.max_length is not None:
            if places and places[-1] + 1 + added > self.max_length:
                raise DuetError(f"its images alone are longer than max_length {self.max_length}")
            answer_start = int(answers.nonzero()[0])
            before = sum(n - 1 for n, place in zip(tokens, places, strict=True) if place < answer_start)
            if answer_start + before >= self.max_length:
                raise DuetError(f"all its labels are masked: no answer begins before max_length {self.max_length}")
        length = len(ids) + added
        return length if self.max_length is None else min(length, self.max_length)

    def image_tokens(self, sizes: list[tuple[int, int]]) -> list[int]:
        """Visual tokens of images of (height, width), as the processor will write them out."""
        if not sizes:
            return []
        try:
            return host.image_tokens(self.processor, sizes)
        except ValueError as error:  # of an image that is too narrow, for example
            raise DuetError(f"the model's processor refuses its images ({str(error).rstrip('.')})") from error

    def probe(self, path: Path) -> tuple[int, int]:
        """(height, width) of a picture as training will read it, which the processor takes."""
        if path not in self.probed:
            try:
                size = size_of(path)
                if size not in self.taken:
                    self.taken[size] = self._refusal(size)
                reason = self.taken[size]
                self.probed[path] = size if reason is None else f"image {str(path)!r} {reason}"
            except DuetError as error:
                self.probed[path] = str(error)
        probed = self.probed[path]
        if isinstance(probed, str):
            raise DuetError(probed)
        return probed

    def length_with_videos(self, rendered: Rendered, chosen: Conversation) -> int:
        """What only the batch itself tells: how long a video becomes, and whether the processor takes it."""
        if getattr(self.processor, "video_processor", None) is None:
            raise DuetError("it has a video, and this model reads none")
        images = tuple(read_image(path) for path in chosen.images)
        row = Loaded(rendered, images, tuple(self.video(path) for path in chosen.videos))
        try:
            batch = Collator(self.processor, self.max_length)([row])
        except Exception as error:  # processors raise many kinds
            raise DuetError(f"it is refused by the model's processor ({_told(error)})") from error
        if not (batch["labels"] != IGNORED).any():
            raise DuetError(f"all its labels are masked: no answer begins before max_length {self.max_length}")
        length: int = batch["labels"].shape[1]
        return length

    def _refusal(self, size: tuple[int, int]) -> str | None:
        """Why the processor takes no picture of (height, width), which is all that RGB pictures differ in to it."""
        height, width = size
        try:
            self.processor.image_processor(images=[Image.new("RGB", (width, height))], return_tensors="pt")
        except Exception as error:  # as above
            return f"of {width} x {height} pixels is refused by the model's processor ({_told(error)})"
        return None


def _told(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def check_records(
    records: list[RawRecord], checker: Checker, workers: int, advance: Callable[[int], Any] = lambda _: None
) -> Checked:
    """Check all records; `advance` is called with how many are done."""
    good: list[int] = []
    lengths: list[int] = []
    broken: list[Broken] = []
    for i, (length, reason) in enumerate(_checked(records, checker, workers)):
        if reason is None:
            good.append(i)
            lengths.append(length)
        else:
            broken.append(Broken(records[i].file, records[i].index, reason))
        advance(i + 1)
    return Checked(good, lengths, broken)


def _checked(records: list[RawRecord], checker: Checker, workers: int) -> Iterator[tuple[int, str | None]]:
    if workers < 2:
        yield from map(checker, records)
        return
    with ThreadPoolExecutor(workers) as pool:  # decoding pictures leaves the interpreter free
        for start in range(0, len(records), 1024):
            yield from pool.map(checker, records[start : start + 1024])
