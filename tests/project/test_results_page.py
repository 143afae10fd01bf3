"""The pages of results are what the committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet_vlm.evaluation.markdown import results_page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "page", "shipped"), [("methods", "results.md", True), ("full-tokens", "results-full-tokens.md", False)]
)
def test_page_is_made_from_the_figures(folder: str, page: str, shipped: bool) -> None:
    methods, ablations = (
        json.loads((ROOT / "results" / folder / f"{name}.json").read_text()) for name in ("methods", "ablations")
    )
    written = (ROOT / "docs" / page).read_text()
    assert written == results_page(methods, ablations, folder, shipped)
    for run in methods["runs"]:
        assert f"{100 * run['accuracy']:.1f}" in written
    assert (methods["settings"]["dtype"], methods["seed"]) == ("float32", 0)
