"""Open video questions for lmms-eval: MSVD-QA and MSRVTT-QA (Xu et al., ACM MM 2017), TGIF-QA (arXiv 1704.04497).

The test questions are read as Video-ChatGPT (arXiv 2306.05424) arranged them and Video-LLaVA (arXiv 2311.10122) shares
them: a folder for each benchmark, with `test_q.json`, `test_a.json` and the videos. The variable DUET_VIDEO_QA names
the folder that holds these three.
"""

from __future__ import annotations

import json
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from duet_vlm.errors import DuetError
from duet_vlm.inputs.text_files import read_json

logger = logging.getLogger(__name__)
ROOT, JUDGE = "DUET_VIDEO_QA", "DUET_VIDEO_QA_JUDGE"
ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
REQUEST = """Judge an answer to a question about a video. Synonyms and paraphrases of the right answer are right too.
Question: {question}
Right answer: {answer}
Given answer: {given}
Reply with nothing but this JSON: {{"correct": "yes" or "no", "score": 0 (unrelated) to 5 (the same)}}"""


def documents(benchmark: Dataset) -> Dataset:
    """The questions of the benchmark that the only record describes, with their answers and the paths of their videos.

    Raises:
        ValueError: the variable is not set, a file is missing, or questions and answers do not belong together.
    """
    layout = benchmark[0]
    folder = _root() / layout["folder"]
    questions, answers = _records(folder / "test_q.json"), _records(folder / "test_a.json")
    if len(questions) != len(answers):
        raise DuetError(
            f"{folder} has {len(questions)} questions and {len(answers)} answers: give test_q.json and test_a.json of "
            "one benchmark."
        )
    found = []
    for place, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        # as the published evaluations do, by their place in the files
        if question["question_id"] != answer.get("question_id", question["question_id"]):
            raise DuetError(
                f"entry {place} of {folder} asks {question['question_id']!r} and answers {answer['question_id']!r}: "
                "put test_q.json and test_a.json into the same order."
            )
        found.append(
            {"question_id": str(question["question_id"]), "question": question["question"],
             "answer": str(answer["answer"]), "videos": str(folder / layout["videos"]),
             "video_name": str(question["video_name"])}
        )  # fmt: skip
    return Dataset.from_list(found)


def video(document: dict[str, Any]) -> list[str]:
    """The path of the video.

    Raises:
        ValueError: there is none of any known ending.
    """
    folder, name = Path(document["videos"]), document["video_name"]
    for file in (folder / name, *(folder / f"{name}{ending}" for ending in ENDINGS)):
        if file.is_file():
            return [str(file)]
    raise DuetError(f"video {name!r} is not in {str(folder)!r}: put it there as {', '.join(ENDINGS)}.")


def question(document: dict[str, Any], lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """The question as it is asked."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{document['question'].strip()}{around.get('post_prompt', '')}"


def score(document: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Exact match and contained match; what a judge says besides where one is configured."""
    answer_words, right = words(answers[0]), words(document["answer"])
    runs = [answer_words[i : i + len(right)] for i in range(len(answer_words) - len(right) + 1)]
    figures = {"exact_match": float(answer_words == right), "contained_match": float(bool(right) and right in runs)}
    return figures | judge(document, answers[0]) if os.getenv(JUDGE) else figures


def words(text: str) -> list[str]:
    """Lower case, without punctuation and articles."""
    return [word for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()) if word not in ("a", "an", "the")]


def judge(document: dict[str, Any], answer: str) -> dict[str, float]:
    """Accuracy (0 or 1) and score (0 to 5) from the model that DUET_VIDEO_QA_JUDGE names; or that it gave none."""
    from lmms_eval.llm_judge import Request

    text = REQUEST.format(question=document["question"], answer=document["answer"], given=answer)
    try:
        reply = _server(os.environ[JUDGE]).evaluate(Request(messages=[{"role": "user", "content": text}])).content
        verdict = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        points = min(max(float(verdict["score"]), 0.0), 5.0)
        right = {"yes": 1.0, "no": 0.0}[str(verdict["correct"]).strip().lower()]
    except Exception as error:  # servers, clients and replies fail in many ways, and one of them ends no long run
        logger.warning("no verdict on question %s (%r): left out of the judge's means", document["question_id"], error)
        return {"judge_failed": 1.0}
    return {"judge_accuracy": right, "judge_score": points, "judge_failed": 0.0}


@cache
def _server(model: str) -> Any:
    from lmms_eval.llm_judge import ServerConfig, get_server

    return get_server(os.getenv("API_TYPE", "openai"), ServerConfig(model_name=model, max_tokens=64))


def _root() -> Path:
    root = os.getenv(ROOT)
    if not root:
        raise DuetError(f"{ROOT} is not set: set it to the folder that holds MSVD_Zero_Shot_QA and its like.")
    return Path(root).expanduser()


def _records(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(file, "file", "the benchmark's, see docs/lmms-eval.md for the layout")
    return found
