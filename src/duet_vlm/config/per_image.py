"""Budgets that differ from image to image: `coverage`, by what an image shows, and `history`, by its age."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DuetError, shown
from . import registry
from .drops import set_fields
from .values import SLACK, as_count, as_share


def check_per_image(settings: Any) -> None:
    """Keep `coverage`, `coverage_floor` and `history` of a `Settings` as Python's own numbers.

    Raises:
        DuetError: a value is not possible, or the other settings leave it no meaning.
    """
    for name in ("coverage", "history"):
        if (value := getattr(settings, name)) is not None and settings.pixelprune is not None:
            raise DuetError(f"{name} {shown(value)} and pixelprune are not possible together: leave one of them out.")
    set_fields(settings, coverage_floor=as_count("coverage_floor", settings.coverage_floor, minimum=1))
    if settings.coverage is not None:
        set_fields(settings, coverage=as_share("coverage", settings.coverage))
        _check_coverage(settings)
    elif settings.coverage_floor != 1 or isinstance(settings.coverage_floor, float):
        raise DuetError(
            f"coverage_floor {settings.coverage_floor!r} is the least that coverage takes, and there is none: give "
            "coverage too, or leave it out."
        )
    if settings.history is not None:
        set_fields(settings, history=as_share("history", settings.history))
        if settings.dominant is None:
            raise DuetError(
                f"history {settings.history:g} lowers what stage 1 retains of older images, and it is off: give "
                "dominant too, or leave history out."
            )
        if settings.coverage is not None:
            raise DuetError(
                f"history {settings.history:g} is a share of counts, and coverage {settings.coverage:g} knows none "
                "beforehand: give one of them."
            )


def aged(settings: Any, counts: tuple[int, int], reserved: int = 0) -> tuple[int, int]:
    """K1 and K2 of an older image whose counts would be these: each times `history`, rounded down.

    One patch stays in any case, and one contextual token where there are some.

    Args:
        settings: which have `history`.
        counts: K1 and K2.
        reserved: how many of K1 are no patches.
    """
    assert settings.history is not None
    dominant, contextual = (math.floor(settings.history * n + SLACK) for n in counts)
    return min(counts[0], max(1 + reserved, dominant)), min(counts[1], max(1, contextual))


def _check_coverage(settings: Any) -> None:
    told = f"coverage {settings.coverage:g}"
    if settings.dominant is None:
        raise DuetError(f"{told} needs stage 1: give dominant too, the most tokens of an image, as 1.0 for all.")
    if not settings.stage1_method.one_by_one:
        able = " or ".join(repr(row.name) for row in registry.STAGE1.values() if row.one_by_one)
        raise DuetError(
            f"{told} is for methods that choose one token after another, and merging "
            f"{registry.called(settings.merging)} is none of them: merge with {able}."
        )
    if settings.contextual:
        raise DuetError(f"{told} merges nothing, so contextual {settings.contextual!r} has no meaning: leave it 0.")
    floor, ceiling = settings.coverage_floor, settings.dominant
    if isinstance(floor, float) == isinstance(ceiling, float) and floor > ceiling:
        raise DuetError(f"coverage_floor {floor!r} is above dominant {ceiling!r}, the most of an image: lower it.")
