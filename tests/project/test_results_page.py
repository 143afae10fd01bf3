"""The pages of results are what the committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet_vlm.evaluation.markdown import FULL_TOKENS, results_page
from duet_vlm.inputs.model_folders import DEMO, PAGES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "page", "kind"),
    [
        ("methods", "results.md", DEMO),
        ("full-tokens", "results-full-tokens.md", FULL_TOKENS),
        ("pages", "results-pages.md", PAGES),
    ],
)
def test_page_is_made_from_the_figures(folder: str, page: str, kind: str) -> None:
    methods, ablations = (
        json.loads(file.read_text()) if (file := ROOT / "results" / folder / f"{name}.json").exists() else None
        for name in ("methods", "ablations")
    )
    assert methods is not None and (ablations is None) == (kind == PAGES)
    written = (ROOT / "docs" / page).read_text()
    assert written == results_page(kind, methods, ablations, folder)
    for run in methods["runs"]:
        assert f"{100 * run['accuracy']:.1f}" in written
    assert (methods["settings"]["dtype"], methods["seed"]) == ("float32", 0)
