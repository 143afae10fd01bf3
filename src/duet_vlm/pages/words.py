"""The words and numbers that pages are made of."""

from __future__ import annotations

import numpy as np

# short enough for a button of a screen
ITEMS = (
    "apple", "bacon", "beans", "bread", "broom", "brush", "cake", "candle", "cheese", "clock", "corn", "cup", "fish",
    "flour", "garlic", "glue", "honey", "jam", "knife", "lamp", "lemon", "mango", "milk", "mirror", "nuts", "olive",
    "onion", "paper", "peach", "pear", "pencil", "pepper", "plate", "plum", "rice", "rope", "salt", "soap", "spoon",
    "sugar", "tape", "tea", "towel", "vase", "water", "wool",
)  # fmt: skip
ACTIONS = (
    "back", "close", "copy", "cut", "edit", "filter", "help", "home", "map", "menu", "music", "news", "open", "paste",
    "play", "print", "save", "send", "share", "stop", "sync", "undo", "video", "zoom",
)  # fmt: skip
LABELS = ("age", "code", "desk", "floor", "gate", "house", "phone", "room", "seat", "ticket", "track", "unit")
TITLES = ("bakery", "garden", "harbor", "market", "museum", "office", "school", "station")
HEADS = ("price", "stock", "sales", "order", "size")
TOTAL = "total"


def words() -> tuple[str, ...]:
    """Every word that can stand on a page, sorted."""
    return tuple(sorted({*ITEMS, *ACTIONS, *LABELS, *TITLES, *HEADS, TOTAL}))


def several(rng: np.random.Generator, of: tuple[str, ...], count: int) -> list[str]:
    """Different words."""
    return [of[int(i)] for i in rng.permutation(len(of))[:count]]


def numbers(rng: np.random.Generator, count: int) -> list[int]:
    """Different numbers of two or three digits, any two at least 3 apart, so that a comparison is about reading."""
    while True:
        chosen = np.where(rng.random(count) < 0.5, rng.integers(10, 100, count), rng.integers(100, 1000, count))
        apart = np.diff(np.sort(chosen))
        if count < 2 or apart.min() >= 3:
            return [int(number) for number in chosen]
