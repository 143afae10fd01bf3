"""What other libraries log and warn of, kept from people who asked for an answer."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Their messages below an error are not logged, and their warnings not shown; our own are.

    Libraries set their own levels while they are imported, so it is not their loggers that are told.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"duet_vlm\.")
            warnings.showwarning = _told
            yield
    finally:
        logging.disable(before)


def _told(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"duet: {message}", file=sys.stderr)
