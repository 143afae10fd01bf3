"""What the server answers is what the engine's own `generate` gives, in every form a client may ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import saved
from commands import answered
from serving import Served, scene, serve, user

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.demo.model import load
from duet_vlm.inputs.checkpoints import read_model

KEEP = 0.33
ASKED = [
    (1, "What color is the star?"), (2, "How many circles are there?"), (3, "What number is on the ring?"),
    (4, "Is there a red square?"), (5, "Where is the heart?"), (6, "What shape is blue?"),
    (7, "How many stars are there?"), (8, "What color is the cross?"),
]  # fmt: skip


class Reference:
    """The engine on a model of its own, asked without a server."""

    def __init__(self, model: Any, processor: Any, config: DuetConfig):
        self.model, self.processor = model, processor
        self.handle = duet_vlm.apply(model, config, tokenizer=processor)

    def ask(self, pictures: list[Any], text: str, most: int) -> str:
        inputs = self.processor(images=pictures or None, text=text, return_tensors="pt")
        out = self.model.generate(**inputs, max_new_tokens=most, do_sample=False)
        return str(self.processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.fixture(scope="module")
def demo() -> Iterator[Served]:
    model, processor = load()
    with serve(model, processor, DuetConfig.preset("duet", model=model, keep=KEEP)) as served:
        yield served


@pytest.fixture(scope="module")
def reference() -> Reference:
    model, processor = load()
    return Reference(model, processor, DuetConfig.preset("duet", model=model, keep=KEEP))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: long answers, whose every token depends on all before it."""
    return saved.save(tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def talker(folder: Path) -> Iterator[Served]:
    model, processor = read_model(str(folder), "float32", "cpu")
    with serve(model, processor, DuetConfig.preset("duet", model=model, keep=0.5)) as served:
        yield served


@pytest.fixture(scope="module")
def talk(folder: Path) -> Reference:
    model, processor = read_model(str(folder), "float32", "cpu")
    return Reference(model, processor, DuetConfig.preset("duet", model=model, keep=0.5))


def content(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_answers_are_those_of_generate_with_eight_asking_at_once(demo: Served, reference: Reference) -> None:
    expected = [reference.ask([scene(n)], f"USER: <image>\n{text} ASSISTANT:", 8) for n, text in ASKED]
    assert len(set(expected)) > 4
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda one: content(demo.ask(user(scene(one[0]), one[1]))), ASKED)) == expected


def test_the_answer_is_that_of_duet_run(demo: Served, tmp_path: Path) -> None:
    file = tmp_path / "scene.png"
    scene(9).save(file)
    question = "What color is the ring?"
    said = answered("run", file, "--ask", question, "--keep", KEEP)
    assert content(demo.ask(user(scene(9), question))) == said["answer"] != ""


def test_counts_are_what_the_trace_says(demo: Served, reference: Reference) -> None:
    before = demo.metrics()
    kept, asked = 0.0, 0
    for n, text in ASKED[:3]:
        answer = demo.ask(user(scene(n), text))
        reference.ask([scene(n)], f"USER: <image>\n{text} ASSISTANT:", 8)
        trace = reference.handle.trace
        assert trace is not None
        counts = trace.samples[0].tokens_per_layer
        kept, asked = kept + sum(counts) / len(counts), asked + len(trace.samples[0].visual)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.prompt_tokens > len(trace.samples[0].visual)
    demo.ask(user("What is a star?"))  # no picture, no visual tokens
    after = demo.metrics()
    told = {name: after[name] - before[name] for name in after}
    assert told["duet_visual_tokens_in_total"] == asked == 3 * 196
    assert told["duet_visual_tokens_kept_total"] == pytest.approx(kept)
    assert told["duet_visual_tokens_saved_total"] == pytest.approx(asked - kept)
    assert told['duet_requests_total{status="200"}'] == told["duet_answer_seconds_count"] == 4
    assert after["duet_requests_running"] == after["duet_requests_waiting"] == 0


def test_a_conversation_is_asked_whole(talker: Served, talk: Reference) -> None:
    turns = [
        {"role": "system", "content": "look well ."},
        user(scene(1), "find the ring ."),
        {"role": "assistant", "content": "red", "refusal": None},
        user("what color is it ?", scene(2), scene(3)),
    ]
    # the template of this model puts the pictures of a message first
    text = (
        "ASSISTANT: look well .</s>USER: <image>\nfind the ring . ASSISTANT: red</s>"
        "USER: <image>\n<image>\nwhat color is it ? ASSISTANT:"
    )
    pictures = [scene(1), scene(2), scene(3)]
    assert content(talker.ask(*turns, max_tokens=24)) == talk.ask(pictures, text, 24)


def test_text_alone_is_answered(talker: Served, talk: Reference) -> None:
    assert content(talker.ask(user("find the ring ."))) == talk.ask([], "USER: find the ring . ASSISTANT:", 8)


def test_a_stream_says_the_same_piece_by_piece(talker: Served) -> None:
    question = user(scene(1), "find the ring .")
    whole = talker.ask(question, max_tokens=32)
    events = list(talker.ask(question, max_tokens=32, stream=True, stream_options={"include_usage": True}))
    *events, last = events
    pieces = [event.choices[0].delta.content or "" for event in events]
    assert "".join(pieces) == content(whole) and sum(map(bool, pieces)) > 8
    assert events[0].choices[0].delta.role == "assistant"
    assert [e.choices[0].finish_reason for e in events if e.choices[0].finish_reason] == ["length"]
    assert whole.choices[0].finish_reason == "length"
    assert not last.choices and last.usage == whole.usage and whole.usage.completion_tokens == 32
    assert len({event.id for event in events}) == 1
    assert not any(event.usage for event in talker.ask(question, stream=True))


def test_stop_texts_end_an_answer_before_them(talker: Served) -> None:
    question = user(scene(1), "find the ring .")
    whole = content(talker.ask(question, max_tokens=32))
    words = whole.split()
    stop = next(word for word in words[4:] if len(word) > 3)
    for options in ({"stop": stop}, {"stop": ["never there", stop]}):
        short = talker.ask(question, max_tokens=32, **options)
        assert content(short) == whole[: whole.find(stop)]
        assert short.choices[0].finish_reason == "stop" and short.usage.completion_tokens < 32
        streamed = talker.ask(question, max_tokens=32, stream=True, **options)
        assert "".join(event.choices[0].delta.content or "" for event in streamed) == content(short)


def test_a_seed_repeats_a_sample_and_temperature_0_is_greedy(talker: Served) -> None:
    def sample(**options: Any) -> str:
        return content(talker.ask(user(scene(1), "find the ring ."), max_tokens=12, **options))

    greedy = sample()
    drawn = [sample(temperature=2, seed=seed) for seed in range(4)]
    assert drawn == [sample(temperature=2, seed=seed) for seed in range(4)]
    assert len({greedy, *drawn}) == 5
    assert len({sample(temperature=2, seed=None) for _ in range(3)}) == 3
    assert sample(temperature=2, top_p=1e-9, seed=0) == greedy


def test_what_a_request_leaves_out_is_the_models_own(talker: Served) -> None:
    asked = {"messages": [user(scene(1), "find the ring .")], "max_tokens": 12}
    said = [talker.post(asked).json()["choices"][0]["message"]["content"] for _ in range(2)]
    assert said == [content(talker.ask(*asked["messages"], max_tokens=12))] * 2


def test_one_model_is_listed(demo: Served) -> None:
    assert [model.id for model in demo.client.models.list().data] == ["demo"]
    assert demo.client.models.retrieve("demo").owned_by == "duet-vlm"
    assert demo.http.get(demo.url.removesuffix("/v1") + "/health").json() == {"status": "ok"}
