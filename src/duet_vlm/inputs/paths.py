"""Whether a path can be read at all, in one sentence. Imports nothing of ours but the error."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DuetError


def check_file(path: Path, kind: str, wanted: str) -> None:
    """Raises DuetError where there is no file to read.

    Args:
        path: of what should be a file.
        kind: what it is called, for example "image".
        wanted: what to give instead, for example "the path of a picture file".
    """
    # os.path answers False to names that no file can have (too long, with a zero), where pathlib raises
    if os.path.isdir(path):
        reason = "is a folder"
    elif not os.path.isfile(path):
        reason = "is no regular file" if os.path.exists(path) else "does not exist"
    elif not os.access(path, os.R_OK):
        reason = "may not be read by this user"
    else:
        return
    raise DuetError(f"{kind} {str(path)!r} {reason}: give {wanted}.")
