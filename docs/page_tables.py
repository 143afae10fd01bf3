"""A table of a page of docs/ that a script beside it writes; a test holds the page to what the script makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """What stands between the script's mark and the end mark of a page.

    Args:
        script: the `__file__` of the script, whose name is in the mark.
        page: the page's name, such as "speed.md", in the folder of the script.
        made: returns the table as it is now.
    """

    script: str
    page: str
    made: Callable[[], str]

    @property
    def file(self) -> Path:
        return Path(self.script).with_name(self.page)

    def written(self) -> str:
        """The page as it is."""
        return self.file.read_text(encoding="utf-8")

    def current(self) -> str:
        """The page with the table as it is now."""
        place = re.compile(rf"(?<=<!-- docs/{re.escape(Path(self.script).name)} -->\n).*?(?=<!-- end -->)", re.S)
        assert place.search(self.written()), f"{self.page} has lost the marks between which the table stands"
        return place.sub(lambda _: self.made(), self.written())

    def write(self) -> None:
        self.file.write_text(self.current(), encoding="utf-8")
