"""`duet eval` on pictures and videos of other families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import saved_video
from clips import clip
from saved import photo
from typer.testing import CliRunner

from duet_vlm.cli.main import app


@pytest.mark.parametrize("family", ["video_llava", "qwen2_5_vl"])
def test_pictures_and_videos_in_one_manifest(tmp_path: Path, family: str) -> None:
    saved_video.save(tmp_path / "model", family)
    photo(tmp_path / "a.png", 64, 64)
    photo(tmp_path / "b.png", 64, 64)
    clip(tmp_path / "c.mp4")
    (tmp_path / "d.mp4").write_bytes(b"no video")
    asked = {"question": "what happens here ?", "answer": "red"}
    media = [{"image": "a.png"}, {"video": "c.mp4"}, {"image": "b.png"}, {"video": "d.mp4"}, {"image": "a.png"}]
    manifest = tmp_path / "questions.jsonl"
    manifest.write_text("".join(json.dumps(asked | one) + "\n" for one in media))
    result = CliRunner().invoke(app, [
        "eval", "--model", str(tmp_path / "model"), "--data", str(manifest), "--methods", "duet", "random", "--keep",
        "0.5", "--batch-size", "4", "--max-new-tokens", "2", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["line"] for one in results["skipped"]] == [4] and "cannot be decoded" in results["skipped"][0]["reason"]
    assert [run["n"] for run in results["runs"]] == [4, 4, 4] and results["sources"] == 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    tokens = {(x["method"], x["id"]): x for x in lines if "answer" in x}
    for name in ("1", "2", "3", "5"):
        full, kept = tokens["none", name], tokens["duet", name]
        assert full["tokens_in"] == full["tokens_last"] >= kept["tokens_in"] > kept["tokens_avg"] > kept["tokens_last"]
        assert kept["kv_bytes"] < full["kv_bytes"]
    assert tokens["none", "2"]["tokens_in"] != tokens["none", "1"]["tokens_in"]  # frames
    assert tokens["none", "1"] | {"id": "", "seconds": 0, "ttft_ms": 0} == tokens["none", "5"] | {
        "id": "", "seconds": 0, "ttft_ms": 0,
    }  # fmt: skip
