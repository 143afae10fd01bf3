"""The extras can be installed together, and the files of constraints are among what they allow."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [line.split("#")[0].strip().partition("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, _, version in found if name}


def needed(*extras: str) -> list[Requirement]:
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in listed]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints.txt", ("train", "video", "serve", "batch")),
        ("constraints-lmms-eval.txt", ("lmms-eval", "video")),
    ],
)
def test_pinned_versions_are_allowed(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    for requirement in needed(*extras):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_videos_can_be_read_beside_lmms_eval() -> None:
    # lmms-eval 0.7.3 requires av<16
    (video,) = (r for r in needed("video") if r.name == "av")
    assert Version("15.1.0") in video.specifier
    assert pins("constraints-lmms-eval.txt")["av"] < Version("16")


def test_the_constraints_for_lmms_eval_are_what_it_requires() -> None:
    try:
        listed = requires("lmms-eval") or []
    except PackageNotFoundError:
        pytest.skip("lmms-eval is not installed")
    pinned = pins("constraints-lmms-eval.txt")
    for line in listed:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_what_smolvlm_needs_is_in_an_extra() -> None:
    assert [r.name for r in needed("smolvlm") if r.name == "num2words"] == ["num2words"]
