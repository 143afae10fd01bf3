"""MSVD-QA, MSRVTT-QA and TGIF-QA under the real lmms-eval 0.7: loading, videos, matching, an optional judge."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install 'duet-vlm[lmms-eval]'")

import saved_video
from datasets import Dataset
from lmms_cases import caches, clip, run
from lmms_eval.tasks import TaskManager, get_task_dict

from duet_vlm.lmms_eval import TASKS
from duet_vlm.lmms_eval.tasks.video_qa import utils as video_qa

__all__ = ["caches"]
pytestmark = pytest.mark.usefixtures("caches")

LAYOUT = {
    "msvd_qa": "MSVD_Zero_Shot_QA/videos",
    "msrvtt_qa": "MSRVTT_Zero_Shot_QA/videos/all",
    "tgif_qa": "TGIF_Zero_Shot_QA/mp4",
}


def benchmark(root: Path, videos: str, ending: str = ".avi") -> Path:
    """Two questions about one clip, in the published layout."""
    folder = root / videos.split("/")[0]
    (root / videos).mkdir(parents=True)
    clip(root / videos / f"clip7{ending}")
    texts = ("is this red ?", "what ?")
    asked = [{"video_name": "clip7", "question_id": i, "question": text} for i, text in enumerate(texts)]
    answers = [{"question_id": 0, "answer": "no", "type": 1}, {"question_id": 1, "answer": "a blue ring", "type": 2}]
    (folder / "test_q.json").write_text(json.dumps(asked))
    (folder / "test_a.json").write_text(json.dumps(answers))
    return folder


@pytest.mark.parametrize(("task", "videos"), LAYOUT.items())
def test_video_tasks_load_and_find_their_videos(
    task: str, videos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark(tmp_path, videos)
    monkeypatch.setenv(video_qa.ROOT, str(tmp_path))
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, model_name="duet_hf")
    loaded = get_task_dict([task], manager, "chat")[task]
    documents = list(loaded.test_docs())
    assert [d["answer"] for d in documents] == ["no", "a blue ring"]
    (turn,) = loaded.doc_to_messages(documents[0])
    assert turn["content"][0] == {"type": "video", "url": str(tmp_path / videos / "clip7.avi")}
    assert turn["content"][1]["text"] == "is this red ?\nAnswer the question using a single word or phrase."


def test_a_video_task_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark(tmp_path, LAYOUT["msvd_qa"])
    monkeypatch.setenv(video_qa.ROOT, str(tmp_path))
    model = saved_video.save(tmp_path, "qwen2_5_vl")
    results = run("msvd_qa", pretrained=model, keep=0.4, query="last", max_frames=4, dtype="float32")
    assert set(results["results"]["msvd_qa"]) >= {"exact_match,none", "contained_match,none"}
    assert not any(name.startswith("judge") for name in results["results"]["msvd_qa"])
    assert all(s["token_counts"][0]["tokens_in"] > 0 for s in results["samples"]["msvd_qa"])


@pytest.mark.parametrize(
    ("answer", "right", "exact", "contained"),
    [
        ("No.", "no", 1, 1),
        ("The ring", "ring", 1, 1),
        ("It is a blue ring.", "a blue ring", 0, 1),
        ("blueish ring", "blue", 0, 0),
        ("blue", "blue ring", 0, 0),
        ("", "no", 0, 0),
    ],
)
def test_video_answers_are_matched(answer: str, right: str, exact: int, contained: int) -> None:
    found = video_qa.score({"question_id": "0", "question": "?", "answer": right}, [answer])
    assert found == {"exact_match": exact, "contained_match": contained}


def test_a_judge_speaks_only_when_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    replies = ['Sure: {"correct": "yes", "score": 4}', '{"correct": "no", "score": 1}', "I cannot tell."]

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"choices": [{"message": {"content": replies[len(asked) - 1]}}], "model": "judge", "usage": {}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(message).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(video_qa.JUDGE, "some-model")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(sys.modules, "openai", None)  # lmms-eval posts the request itself then
    document = {"question_id": "0", "question": "what is he playing ?", "answer": "guitar"}
    try:
        yes, no, neither = (video_qa.score(document, [f"answer {i}"]) for i in range(3))
    finally:
        server.shutdown()
    assert (yes["judge_accuracy"], yes["judge_score"], yes["judge_failed"]) == (1.0, 4.0, 0.0)
    assert (no["judge_accuracy"], no["judge_score"]) == (0.0, 1.0)
    assert neither["judge_failed"] == 1.0 and "judge_accuracy" not in neither
    sent = asked[1]["messages"][0]["content"]
    assert asked[1]["model"] == "some-model"
    assert all(text in sent for text in ("what is he playing ?", "guitar", "answer 1"))


def test_a_wrong_layout_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = Dataset.from_list([{"folder": "MSVD_Zero_Shot_QA", "videos": "videos"}])
    monkeypatch.delenv(video_qa.ROOT, raising=False)
    with pytest.raises(ValueError, match="DUET_VIDEO_QA is not set"):
        video_qa.documents(described)
    monkeypatch.setenv(video_qa.ROOT, str(tmp_path))
    with pytest.raises(ValueError, match=r"test_q.json' does not exist"):
        video_qa.documents(described)
    folder = benchmark(tmp_path, LAYOUT["msvd_qa"])
    (document, _) = video_qa.documents(described)
    with pytest.raises(ValueError, match="video 'other' is not in"):
        video_qa.video({**document, "video_name": "other"})
    turned = [{"question_id": 1, "answer": "b"}, {"question_id": 0, "answer": "a"}]
    (folder / "test_a.json").write_text(json.dumps(turned))
    with pytest.raises(ValueError, match="same order"):
        video_qa.documents(described)
    (folder / "test_a.json").write_text("[]")
    with pytest.raises(ValueError, match="2 questions and 0 answers"):
        video_qa.documents(described)
