"""A config of another release: an older one is read, a newer one is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hostile import VALUES, one_sentence

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.presets import saved_config

# as `to_dict` of release 0.1 wrote it; never to be written again
FIRST = json.loads((Path(__file__).parents[1] / "data" / "config-0.1.json").read_text(encoding="utf-8"))
EXPECTED = {
    "every field": DuetConfig(
        dominant=9,
        contextual=3,
        cluster_width=2,
        drops=[Drop(2, 0.5, rank_at=1), Drop(4, 0)],
        query="last",
        positions="keep",
        language="de",
        combine="mean",
        diverse=True,
        rest=True,
        proportional=True,
        ranking="sparsevlm",
        debias=True,
    ),
    "fractions": DuetConfig(dominant=0.25, contextual=0.05, merging="visionzip"),
    "a smaller image": DuetConfig(downsample=(3, 4)),
    "nothing": DuetConfig(),
}


@pytest.mark.parametrize("name", FIRST)
def test_what_release_0_1_wrote_is_read(name: str) -> None:
    data = FIRST[name]
    assert "version" not in data and DuetConfig.from_dict(data) == EXPECTED[name]
    assert DuetConfig.from_dict(data).to_dict() == {"version": 1} | data
    assert saved_config(SimpleNamespace(duet=data)) == EXPECTED[name]


def test_a_newer_version_is_refused_whatever_else_is_in_it() -> None:
    newer: dict[str, Any] = DuetConfig(dominant=9).to_dict() | {"version": 4, "a field of the future": 5}
    with pytest.raises(DuetError, match="this config has version 4, and this duet-vlm reads up to version 3") as error:
        DuetConfig.from_dict(newer)
    one_sentence(error)
    with pytest.raises(
        DuetError, match=r"cannot be used \(this config has version 4, .* reads up to version 3"
    ) as saved:
        saved_config(SimpleNamespace(duet=newer))
    one_sentence(saved)


def test_any_version_is_read_or_one_sentence() -> None:
    read = []
    for value in VALUES.values():
        try:
            DuetConfig.from_dict({"version": value})
        except ValueError as error:
            one_sentence(error)
        else:
            read.append(value)
    assert [int(value) for value in read] == [1, 3, 3]  # as Python and numpy have them
