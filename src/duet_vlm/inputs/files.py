"""Files and folders that a user names: what cannot be written is found before any work, and said in one sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import DuetError

STDOUT = Path("-")


def check_writable(file: Path, what: str) -> None:
    """Refuse a file that could not be written; it is not made, and one that is there is not touched.

    Args:
        file: to write; missing folders are not made.
        what: shall be written, at the start of the sentence: "figures".

    Raises:
        DuetError: a folder, a file in no folder, or one that may not be written.
    """
    name, folder = repr(str(file)), os.path.dirname(file) or "."
    if os.path.isdir(file):
        raise DuetError(f"{what} cannot be written to {name}: it is a folder, give a file in it.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise DuetError(f"{what} cannot be written to {name}: {folder!r} is a file, give one in a folder.")
    if not os.path.isdir(folder):
        raise DuetError(f"{what} cannot be written to {name}: its folder does not exist, create it first.")
    if not os.access(file if os.path.exists(file) else folder, os.W_OK):
        raise DuetError(f"{what} cannot be written to {name}: there is no permission, choose another place.")
    _check_name(file, what)


def check_writable_folder(folder: Path, what: str) -> None:
    """Refuse a folder that could not be made or written to; it is not made.

    Raises:
        DuetError: a file, a folder below a file, or one that may not be written.
    """
    name, there = repr(str(folder)), os.path.abspath(folder)
    _check_name(folder, what)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise DuetError(f"{what} cannot be written to {name}: {there!r} is a file, give a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DuetError(f"{what} cannot be written to {name}: there is no permission, choose another place.")


@contextlib.contextmanager
def writing(place: Path, what: str) -> Iterator[None]:
    """A full disk and its like, while a file or folder is written, in one sentence.

    Raises:
        DuetError: with the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise DuetError(
            f"{what} cannot be written to {str(place)!r} ({_why(error)}): make room, or choose another place."
        ) from error


@contextlib.contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """The same for a file that is read.

    Raises:
        DuetError: with the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise DuetError(f"{what} {str(file)!r} cannot be read ({_why(error)}): give a file that can.") from error


def write_whole(file: Path, text: str, what: str, rank: int = 0) -> None:
    """Write a file so that a stop leaves the old one or the new one, never half of it.

    Args:
        what: is written, at the start of the sentence that says why it cannot be.
        rank: of the process, where several may write the same.
    """
    new = file.with_name(f"{file.name}.{rank}.new")
    with writing(file, what):
        new.write_text(text, encoding="utf-8")
        new.replace(file)


def _check_name(place: Path, what: str) -> None:
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise DuetError(
            f"{what} cannot be written to {str(place)[:40] + '...'!r} ({_why(error)}): choose another name."
        ) from error


def _why(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(". ")
