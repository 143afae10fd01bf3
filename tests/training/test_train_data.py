"""Data to train on: both formats, where answers stand, what batches hold, and every broken record with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saved import PATCHES, photo, processor
from train_data import llava

from duet_vlm.demo import vocabulary
from duet_vlm.stage2.queries import IGNORED
from duet_vlm.training.checking import Checked, Checker, check_records, data_key
from duet_vlm.training.conversations import Renderer
from duet_vlm.training.dataset import Collator, Conversations
from duet_vlm.training.records import conversation, read_records

# the templates of converted LLaVA-1.5 checkpoints (no token ends a turn) and of Qwen's and Llama 3's kind
LLAVA_15 = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', "
    "'text') %}{{ content['text'] + ' ' }}{% endfor %}{% else %}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '[' + message['role'] + ']\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '</s>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
# earlier answers are shortened, as templates do that cut what a model thought; the marks tell which text is learnt
REWRITING = (
    "{% for message in messages %}{{ message['role'] + ': ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif message['role'] != 'assistant' %}{{ part['text'] }}"
    "{% elif loop.last and not message == messages[-1] %}{{ '...' }}"
    "{% else %}MARK{{ part['text'] }}</s>END{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
TWO_TURNS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color is the star ?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    {"role": "user", "content": [{"type": "text", "text": "is there a circle ?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
]


def with_template(template: str) -> Any:
    made = processor()
    made.chat_template = template
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png", 90, 120)
    return tmp_path


@pytest.mark.parametrize(
    "template,answers",
    [
        (vocabulary.CHAT_TEMPLATE, [" red</s>", " no</s>"]),
        (LLAVA_15, [" red</s>", " no</s>"]),
        (CHATML, ["red</s>", "no</s>"]),
        (REWRITING.replace("MARK", "{% generation %}").replace("END", "{% endgeneration %}"), ["no</s>"]),
    ],
    ids=["demo", "llava-1.5", "chatml", "marks"],
)
def test_answers_are_found(template: str, answers: list[str]) -> None:
    rendered = Renderer(with_template(template))(TWO_TURNS)
    assert [rendered.text[start:end] for start, end in rendered.answers] == answers


def test_llava_15_reads_as_it_was_trained() -> None:
    text = Renderer(with_template(LLAVA_15))(TWO_TURNS).text
    first, second = "USER: <image>\nwhat color is the star ? ASSISTANT: red</s>", "USER: is there a circle ? "
    assert text == first + second + "ASSISTANT: no</s>"


def test_a_template_that_hides_its_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        Renderer(with_template(REWRITING.replace("MARK", "").replace("END", "")))(TWO_TURNS)
    with pytest.raises(ValueError, match="no chat template"):
        Renderer(processor(template=False))
    with pytest.raises(ValueError, match="the chat template refuses it: no way"):
        Renderer(with_template("{{ raise_exception('no way') }}"))(TWO_TURNS)


def labelled(made: Any, batch: dict[str, Any], row: int) -> str:
    labels = batch["labels"][row]
    text: str = made.tokenizer.decode(labels[labels != IGNORED])
    return text


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", [vocabulary.CHAT_TEMPLATE, LLAVA_15, CHATML], ids=["demo", "llava-1.5", "chatml"])
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_labels_are_the_answers_and_nothing_else(family: str, template: str, side: str, folder: Path) -> None:
    made = processor(family)
    made.chat_template, made.tokenizer.padding_side = template, side
    records = [llava(2, "a.png", 1), llava(1, None, 2), llava(3, "b.png", 4)]
    listed = [conversation(r, folder) for r in records]
    batch = Collator(made)([Conversations(listed, Renderer(made), 8)[i] for i in range(3)])
    assert batch["labels"].shape == batch["input_ids"].shape == batch["attention_mask"].shape
    for row, record in enumerate(records):
        answers = [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
        assert labelled(made, batch, row).split() == " </s> ".join([*answers, ""]).split()
    kept = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
    assert not kept[batch["attention_mask"] == 0].any()
    assert not kept[batch["input_ids"] == made.image_token_id].any()
    pad = (batch["attention_mask"] == 0)[1]  # the row of text alone is the shortest
    assert (pad[0] if side == "left" else pad[-1]) and len(batch["pixel_values"]) == 2
    if family == "llava":
        assert (batch["input_ids"] == made.image_token_id).sum(1).tolist() == [PATCHES, 0, PATCHES]


def test_both_formats_read_alike(folder: Path) -> None:
    one = conversation(llava(2, "a.png", 3), folder)
    texts = [turn["value"].replace("<image>\n", "") for turn in llava(2, "a.png", 3)["conversations"]]
    first = [{"type": "image", "path": "a.png"}, {"type": "text", "text": texts[0]}]
    rest = [{"role": r, "content": t} for r, t in zip(("assistant", "user", "assistant"), texts[1:], strict=True)]
    inside = {"messages": [{"role": "user", "content": first}, *rest]}
    beside = {"messages": [{"role": "user", "content": f"<image>\n{texts[0]}"}, *rest], "images": ["a.png"]}
    assert conversation(inside, folder) == conversation(beside, folder) == one
    assert one.images == (folder / "a.png",)


def test_json_and_json_lines(folder: Path) -> None:
    records = [llava(1, None, i) for i in range(3)]
    (folder / "list.json").write_text(json.dumps(records))
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, records)))
    for name in ("list.json", "lines.jsonl"):
        assert [r.data for r in read_records((str(folder / name),))] == records
    both = read_records((str(folder / "list.json"), str(folder / "lines.jsonl")))
    assert [r.index for r in both] == [0, 1, 2, 0, 1, 2]


def chat(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


BROKEN: list[tuple[Any, str]] = [
    ("text", "it is a str and no mapping"),
    ({"id": 1}, "neither conversations nor messages"),
    ({"conversations": []}, "conversations are no list, or an empty one"),
    ({"conversations": [{"from": "human"}]}, "turn 0 has no 'from' and 'value'"),
    ({"conversations": [{"from": "robot", "value": "?"}]}, "unknown role 'robot'"),
    ({"conversations": [{"from": "human", "value": "?"}]}, "it has no answer"),
    (chat(("user", "?"), ("assistant", "  ")), "it has no answer"),
    (chat(("user", 3), ("assistant", "no")), "a content is a int"),
    (chat(("user", [{"type": "sound"}]), ("assistant", "no")), "neither text, image nor video"),
    (llava(1, "gone.png"), "gone.png' does not exist"),
    (llava(1, "torn.png"), "torn.png' is truncated or damaged"),
    (llava(1, "words.png"), "words.png' is no picture"),
    (llava(1, None) | {"image": "a.png"}, "1 images and 0 <image> places"),
    (chat(("user", "<image>?"), ("assistant", "no")), "0 images and 1 <image> places"),
    (llava(1, None) | {"image": 3}, "its image 3 is no path"),
    (llava(1, "https://there/a.png"), "is an address"),
    (chat(("user", "<video>?"), ("assistant", "no"), video="v.mp4"), "this model reads none"),
    (chat(("user", "red " * 900), ("assistant", "no")), "no answer begins before max_length"),
    (chat(("user", "<image><image><image><image><image>?"), ("assistant", "no"), images=["a.png"] * 5), "images alone"),
]


def test_every_broken_record_is_named_with_its_reason(folder: Path) -> None:
    whole = (folder / "a.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "words.png").write_text("no picture")
    lines = [json.dumps(data) for data in (llava(1, "a.png", 2), *(data for data, _ in BROKEN))]
    lines += ["{", json.dumps(llava(2, None))]
    (folder / "data.jsonl").write_text("\n".join(lines))
    records = read_records((str(folder / "data.jsonl"),))
    seen: list[int] = []
    checked = check_records(records, Checker(Renderer(processor()), folder, 800, 8), 3, seen.append)
    assert checked.good == [0, len(lines) - 1] and seen == list(range(1, len(lines) + 1))
    assert [b.index for b in checked.broken] == list(range(1, len(lines) - 1))
    for found, (data, reason) in zip(checked.broken, [*BROKEN, ("{", "the line is no JSON")], strict=True):
        assert reason in found.reason, (data, found)
        assert str(found).startswith(f"{folder / 'data.jsonl'}, record {found.index}: ")


def test_lengths_are_what_the_batch_holds(folder: Path) -> None:
    for family in ("llava", "llava_next"):
        made = processor(family)
        records = [llava(1 + i, None if i == 2 else "ab"[i % 2] + ".png", i) for i in range(4)]
        (folder / "data.json").write_text(json.dumps(records))
        listed = read_records((str(folder / "data.json"),))
        checked = check_records(listed, Checker(Renderer(made), folder, None, 8), 0)
        dataset = Conversations([conversation(r, folder) for r in records], Renderer(made), 8)
        held = [int(Collator(made)([dataset[i]])["attention_mask"].sum()) for i in range(len(records))]
        assert checked.lengths == held


def test_too_long_conversations_lose_their_end(folder: Path) -> None:
    made = processor()
    row = Conversations([conversation(llava(3, "a.png", 1), folder)], Renderer(made), 8)[0]
    whole, cut = Collator(made)([row]), Collator(made, PATCHES + 30)([row])
    assert cut["input_ids"].shape[1] == PATCHES + 30 < whole["input_ids"].shape[1]
    assert torch.equal(cut["labels"], whole["labels"][:, : PATCHES + 30])


def test_a_leading_answer_is_left_out(folder: Path) -> None:
    record = llava(1, None, 1)
    record["conversations"].insert(0, {"from": "gpt", "value": "hello"})
    assert conversation(record, folder) == conversation(llava(1, None, 1), folder)


def test_findings_are_kept_for_the_same_data(folder: Path) -> None:
    (folder / "data.json").write_text(json.dumps([llava(1, None)]))
    key = data_key((str(folder / "data.json"),), None, None, "t")
    checked = Checked([0], [12], [])
    checked.write(folder / "out", key)
    assert Checked.read(folder / "out", key) == checked
    (folder / "data.json").write_text(json.dumps([llava(2, None)]))
    assert Checked.read(folder / "out", data_key((str(folder / "data.json"),), None, None, "t")) is None


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "does not exist: give a JSON list or JSON lines"),
        ("[{", "is no JSON at line 1"),
        ("[]", "holds no record"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_unreadable_files(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_records((str(file),))
