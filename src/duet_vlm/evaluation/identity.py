"""What answers depend on, in short: the weights and what is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .records import Record


def weights_fingerprint(model: Any) -> str:
    """SHA-256 of the first values of every weight: the same model under another name is the same."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def described(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What is asked, a JSON-able line of `records.jsonl` each, with a digest of its picture or its video's size."""
    known: dict[Any, str] = {}

    def content(record: Record) -> str:
        if record.video is not None:
            return f"{_size(record.video)} bytes"
        picture = record.picture
        name = picture if isinstance(picture, Path) else id(picture)
        if name not in known:
            if isinstance(picture, Path):
                data = picture.read_bytes() if picture.is_file() else b""
            else:
                data = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
            known[name] = hashlib.sha256(data).hexdigest()[:16]
        return known[name]

    return [record.described() | {"content": content(record)} for record in records]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
