"""The data set is checked before anything is trained: every broken record with its reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DuetError
from .conversations import Renderer
from .dataset import answer_tokens
from .records import Conversation, Record, conversation

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
        lengths: tokens of each good one, its images' included; a video's are estimated.
        broken: the others.
    """

    good: list[int]
    lengths: list[int]
    broken: list[Broken]

    @property
    def digest(self) -> str:
        """Which records are good, in short."""
        return hashlib.sha256(json.dumps(self.good).encode()).hexdigest()[:16]

    def write(self, folder: Path, key: str) -> None:
        """Leave the findings in a run's folder, for the other processes and for a resumed run."""
        folder.mkdir(parents=True, exist_ok=True)
        broken = [vars(b) for b in self.broken]
        text = json.dumps({"key": key, "good": self.good, "lengths": self.lengths, "broken": broken})
        part = folder / f".{FILE}"
        part.write_text(text)
        part.replace(folder / FILE)

    @classmethod
    def read(cls, folder: Path, key: str) -> Checked | None:
        """What an earlier check of the same data found, if there is one."""
        try:
            data = json.loads((folder / FILE).read_text())
        except (OSError, ValueError):
            return None
        if data.get("key") != key:
            return None
        return cls(data["good"], data["lengths"], [Broken(**b) for b in data["broken"]])


def data_key(files: tuple[str, ...], image_folder: str | None, max_length: int | None, template: str) -> str:
    """What a check's findings hold for: files by size and time of change, and how they are read."""
    stats = [(file, Path(file).expanduser().stat()) for file in files]
    parts = [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats]
    return hashlib.sha256(json.dumps([parts, image_folder, max_length, template]).encode()).hexdigest()


class Checker:
    """Checks one record after another.

    Args:
        renderer: the model's chat template.
        folder: where relative paths of images and videos start.
        max_length: of a conversation, in tokens.
        video_frames: frames read from a video.
    """

    def __init__(self, renderer: Renderer, folder: Path | None, max_length: int | None, video_frames: int):
        self.renderer, self.folder, self.max_length, self.video_frames = renderer, folder, max_length, video_frames
        self.processor = renderer.processor
        self.probed: dict[Path, tuple[int, int] | str] = {}  # an image is asked about many times

    def __call__(self, record: Record) -> tuple[int, str | None]:
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
        if chosen.videos:
            self.check_videos(chosen.videos)
        rendered = self.renderer(chosen.messages)
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
            first = int(answers.nonzero()[0])
            before = sum(n - 1 for n, place in zip(tokens, places, strict=True) if place < first)
            if first + before >= self.max_length:
                raise DuetError(f"all its labels are masked: no answer begins before max_length {self.max_length}")
        length = len(ids) + added + len(chosen.videos) * self.video_frames * sum(self.image_tokens([(336, 336)]))
        return length if self.max_length is None else min(length, self.max_length)

    def image_tokens(self, sizes: list[tuple[int, int]]) -> list[int]:
        """Visual tokens of images of (height, width), as the processor will write them out."""
        if not sizes:
            return []
        try:
            counts: list[int] = self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
        except ValueError as error:  # of an image that is too narrow, for example
            raise DuetError(f"the model's processor refuses its images ({str(error).rstrip('.')})") from error
        return counts

    def probe(self, path: Path) -> tuple[int, int]:
        """(height, width) of a picture that was read to its end."""
        if path not in self.probed:
            self.probed[path] = _probe(path)
        found = self.probed[path]
        if isinstance(found, str):
            raise DuetError(found)
        return found

    def check_videos(self, paths: tuple[Path, ...]) -> None:
        from ..video.decoding import read_frames

        if getattr(self.processor, "video_processor", None) is None:
            raise DuetError("it has a video, and this model reads none")
        for path in paths:
            read_frames(path, lambda total, rate: [0])


def _probe(path: Path) -> tuple[int, int] | str:
    from PIL import Image

    if not path.is_file():
        return f"its image {str(path)!r} does not exist"
    try:
        with Image.open(path) as file:
            width, height = file.size
            file.draft("RGB", (1, 1))  # JPEG: read to the end, but decode an eighth
            file.load()
    except Exception as error:  # decoders raise many kinds
        return f"its image {str(path)!r} cannot be read ({str(error).rstrip('.')})"
    return height, width


def check_records(
    records: list[Record], checker: Checker, workers: int, advance: Callable[[int], Any] = lambda _: None
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


def _checked(records: list[Record], checker: Checker, workers: int) -> Iterator[tuple[int, str | None]]:
    if workers < 2:
        yield from map(checker, records)
        return
    with ThreadPoolExecutor(workers) as pool:  # decoding pictures leaves the interpreter free
        for start in range(0, len(records), 1024):
            yield from pool.map(checker, records[start : start + 1024])
