"""Where and in what a command computes."""

from __future__ import annotations

from ..errors import DuetError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_device(device: str | None) -> str:
    """The device asked for, or the fastest one there is.

    Raises:
        ValueError: a device that this machine or torch does not have.
    """
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if device is None:
        return there[0]
    kind, _, number = str(device).partition(":")
    if kind not in there or (number and not (number.isdigit() and int(number) < max(1, torch.cuda.device_count()))):
        raise DuetError(f"device {device!r} is not available here: choose one of {', '.join(there)}.")
    return device


def check_dtype(dtype: str) -> str:
    """Raises ValueError for a dtype that is not in `DTYPES`."""
    if dtype not in DTYPES:
        raise DuetError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}.")
    return dtype
