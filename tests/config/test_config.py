"""A config never changes, says what is wrong with it in one sentence, and is the same after every journey."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from hostile import VALUES, one_sentence

from duet_vlm import Drop, DuetConfig, DuetError

FIELDS = [f.name for f in fields(DuetConfig)]
BASES: list[dict[str, Any]] = [{}, dict(dominant=9, contextual=3), dict(dominant=0.5, drops=[Drop(3, 0.5)])]
# every field away from its default, in configs that are possible
ALL = [
    DuetConfig(
        dominant=9, contextual=3, cluster_width=2, drops=[Drop(2, 0.5, rank_at=1), Drop(4, 0)], query="last",
        positions="keep", language="de", combine="mean", diverse=True, rest=True, proportional=True,
        ranking="sparsevlm", debias=True,
    ),
    DuetConfig(dominant=0.25, contextual=0.05, merging="visionzip"),
    DuetConfig(downsample=(3, 4)),
    DuetConfig(pixelprune=2.5, dominant=9),
    DuetConfig(audio_keep=0.5, audio_guides=True),
    DuetConfig(dominant=1.0, merging="scope", coverage=0.9, coverage_floor=8),
    DuetConfig(dominant=9, contextual=3, history=0.5),
    DuetConfig(dominant=12, fallback=0.2),
    DuetConfig(),
]  # fmt: skip


def test_every_field_is_away_from_its_default_in_some_config() -> None:
    assert all(any(getattr(c, name) != getattr(DuetConfig(), name) for c in ALL) for name in FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_any_value_of_any_field_is_a_config_or_one_sentence(name: str) -> None:
    makers = (lambda data: DuetConfig(**data), DuetConfig.from_dict, lambda data: replace(DuetConfig(), **data))
    for value, base, make in itertools.product(VALUES.values(), BASES, makers):
        try:
            config = make(base | {name: value})
        except ValueError as error:
            one_sentence(error)
        else:
            if callable(value):  # a function that takes as many arguments; it has no name to be saved under
                with pytest.raises(DuetError, match="ranking len has no name to be saved under") as refused:
                    config.to_dict()
                one_sentence(refused)
                continue
            again = DuetConfig.from_dict(json.loads(json.dumps(config.to_dict())))
            assert again == config and hash(again) == hash(config)


@pytest.mark.parametrize("name", ["layer", "keep", "rank_at", "other"])
def test_any_value_in_a_drop_is_a_drop_or_one_sentence(name: str) -> None:
    for value in VALUES.values():
        plain = {"layer": 3, "keep": 0.5} | {name: value}
        try:
            (drop,) = DuetConfig(drops=[plain]).drops
        except ValueError as error:
            one_sentence(error)
        else:
            assert name != "other" and Drop(**json.loads(json.dumps(drop.__dict__))) == drop
            assert type(drop.layer) is int and type(drop.keep) is float and type(drop.rank_at) in (int, type(None))


WRONG: list[tuple[Any, str]] = [
    (dict(dominant=math.nan), "dominant nan is a fraction and must be in"),
    (dict(dominant=math.inf), "dominant inf is a fraction and must be in"),
    (dict(dominant=10**400), r"the number about 10\*\*400 is too large to count tokens or layers"),
    (dict(dominant="9"), "dominant '9' must be an int of at least 1"),
    (dict(dominant=np.bool_(True)), "dominant an object of type bool"),
    (dict(drops=5), "drops 5 must be a list of drops"),
    (dict(drops=None), "drops None must be a list of drops"),
    (dict(drops="16:0.5"), "drops '16:0.5' must be a list of drops"),
    (dict(drops=Drop(2, 0.5)), "drops an object of type Drop must be a list of drops"),
    (dict(drops={"layer": 2, "keep": 0.5}), "must be a list of drops"),
    (dict(drops=[None]), "None is no drop: write Drop"),
    (dict(drops=[{"layer": 2}]), r"the drop \{'layer': 2\} has no keep"),
    (dict(drops=[{"keep": 0.5}]), "has no layer"),
    (dict(drops=[{"layer": 2, "keep": 0.5, "ratio": 1}]), "has an unknown 'ratio': a drop is layer, keep"),
    (dict(language=["en"]), r"language \['en'\] must be the code of one"),
    (dict(language=""), "language '' must be the code of one"),
    (dict(query=None), "query None is unknown: choose one of salient, all, last"),
    (dict(merging=np.array(["duet", "pool"])), "merging an object of type ndarray is unknown"),
    (dict(debias=1), "debias 1 must be True or False"),
    (dict(rest="yes"), "rest 'yes' must be True or False"),
    (dict(downsample=6), "downsample 6 must be"),
    (dict(downsample=(3, 4, 5)), "downsample .3, 4, 5. must be"),
    (dict(pixelprune=-1), "pixelprune -1 must be the largest difference between equal pixels, a number from 0"),
    (dict(pixelprune=True), "pixelprune True must be"),
    (dict(pixelprune=255), "pixelprune 255 must be .* to below 255: give 0"),
    (dict(pixelprune=0, downsample=(3, 4)), "pixelprune and downsample both make an image smaller"),
    (dict(pixelprune=0, dominant=9, merging="uniform"), "merging 'uniform' needs whole images, and pixelprune leaves"),
    (dict(pixelprune=0, dominant=9, merging="vidcom2"), "choose one of duet, visionzip, random, prumerge, dart"),
    (dict(cluster_width=2.0), "cluster_width 2.0 must be a whole number of at least 1"),
    (dict(dominants=3), "setting 'dominants' is unknown: a DuetConfig has dominant, which is the nearest name"),
    (dict(zebra=3), "setting 'zebra' is unknown: a DuetConfig has dominant, contextual, .*, downsample"),
    ({5: 3}, "setting 5 is unknown: a DuetConfig has dominant, contextual"),
    ([("dominant", 3)], r"read from a mapping of its fields to values, not from \[\('dominant', 3\)\]"),
    ("duet", "not from 'duet'"),
    (None, "not from None"),
    (DuetConfig(), "not from an object of type DuetConfig"),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[m for _, m in WRONG])
def test_the_sentence_names_what_was_given(data: Any, message: str) -> None:
    with pytest.raises(DuetError, match=message) as error:
        DuetConfig.from_dict(data)
    one_sentence(error)


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_can_be_set_or_deleted(name: str) -> None:
    config = DuetConfig(dominant=9)
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, getattr(ALL[0], name))
    with pytest.raises(FrozenInstanceError):
        delattr(config, name)
    assert config == DuetConfig(dominant=9)


def test_a_list_of_drops_that_changes_later_changes_no_config() -> None:
    drops: list[Any] = [Drop(4, 0.25), {"layer": 2, "keep": 0.5}]
    config = DuetConfig(drops=drops)
    drops.clear()
    assert config.drops == (Drop(2, 0.5), Drop(4, 0.25)) and type(config.drops) is tuple
    config.to_dict()["drops"].clear()
    assert len(config.drops) == 2


@pytest.mark.parametrize(
    "config",
    ALL,
    ids=["by hand", "fractions", "downsample", "pixelprune", "sound", "coverage", "history", "guard", "nothing"],
)
def test_a_config_is_the_same_after_every_journey(config: DuetConfig) -> None:
    journeys = [
        DuetConfig.from_dict(config.to_dict()),
        DuetConfig.from_dict(json.loads(json.dumps(config.to_dict()))),
        pickle.loads(pickle.dumps(config)),
        copy.copy(config),
        copy.deepcopy(config),
        replace(config),
        eval(repr(config)),
    ]
    for other in journeys:
        assert other == config and hash(other) == hash(config) and {config: 1}[other] == 1
        assert repr(other) == repr(config)
    assert config != replace(config, language="fr") and config != 5


def test_to_dict_is_what_json_gives_back() -> None:
    for config in ALL:
        assert config.to_dict() == json.loads(json.dumps(config.to_dict()))


def test_replace_checks_again() -> None:
    assert replace(ALL[0], query="all").query == "all"
    with pytest.raises(DuetError, match="query 'lasst' is unknown"):
        replace(ALL[0], query="lasst")


def test_numbers_of_numpy_are_kept_as_pythons() -> None:
    numpys = DuetConfig(
        dominant=np.int64(9), contextual=np.float64(0.25), cluster_width=np.int32(2),
        drops=[Drop(np.int64(3), np.float32(0.5), np.int8(2))],
    )  # fmt: skip
    assert numpys == DuetConfig(dominant=9, contextual=0.25, cluster_width=2, drops=[Drop(3, 0.5, 2)])
    (drop,) = numpys.drops
    kept = [numpys.dominant, numpys.contextual, numpys.cluster_width, drop.layer, drop.keep, drop.rank_at]
    assert [type(value) for value in kept] == [int, float, int, int, float, int]
    assert type(DuetConfig(downsample=[np.int64(3), 4]).to_dict()["downsample"][0]) is int  # type: ignore[arg-type]


def test_configs_and_presets_are_imported_without_torch() -> None:
    code = "import sys, duet_vlm.presets, duet_vlm.config.arguments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_one_token_is_not_all_of_them() -> None:
    assert DuetConfig(dominant=1) != DuetConfig(dominant=1.0)
    assert DuetConfig.from_dict(json.loads(json.dumps(DuetConfig(dominant=1.0).to_dict()))) == DuetConfig(dominant=1.0)


def test_a_published_ratio_of_nothing_is_zero_however_it_is_written() -> None:
    assert repr(Drop(3, 0)) == repr(Drop(3, -0.0)) == "Drop(layer=3, keep=0.0, rank_at=None)"
