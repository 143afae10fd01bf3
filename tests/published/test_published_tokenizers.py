"""Words of a question in the tokens of published tokenizers, against the offsets that those tokenizers tell."""

from __future__ import annotations

from typing import Any

import pytest
from published import TOKENIZERS, tokenizer

from duet_vlm.stage2.words import salient_spans, salient_tokens, token_spans

pytestmark = pytest.mark.published
QUESTIONS = [
    "What's the colour of the t-shirt, and isn't it red?",
    "How many people are there?\n\n  Don't count the dog!",
    "What costs $4.99 at 12:30, and what is 3D-printed 🙂 👨‍👩‍👧?",
    "Quel est le prix du café crème, «\u00a0noisette\u00a0» ?",
    "读一下招牌上写的是什么？",
    "この看板には何と書いてありますか？",
    "ما هو لون السيارة؟",
    "हिन्दी में क्या लिखा है?",
    "def f(x):\n\treturn x  # what does it return?",
]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_spans_are_the_offsets_that_the_tokenizer_tells(name: str, question: str) -> None:
    tokens = tokenizer(name)
    told = tokens(question, return_offsets_mapping=True, add_special_tokens=False)
    text, spans = token_spans(told["input_ids"], tokens)
    assert text == question
    # a token that adds no text alone may have an empty span here and a place there
    assert all(ours == theirs or ours[0] == ours[1] for ours, theirs in zip(spans, told["offset_mapping"], strict=True))
    assert "".join(text[max(a, b) : c] for (_, b), (a, c) in zip([(0, 0), *spans], spans, strict=False)) == question


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_of_salient_words_are_found(name: str, question: str) -> None:
    tokens = tokenizer(name)
    told = tokens(question, return_offsets_mapping=True, add_special_tokens=False)
    words = {place for start, end in salient_spans(question) for place in range(start, end)}
    _, spans = token_spans(told["input_ids"], tokens)
    # Llama 2 writes a space in front of a text, which is no text of its own and asks nothing
    adds = [start < end for start, end in spans]
    expected = [
        there and any(place in words for place in range(*span))
        for there, span in zip(adds, told["offset_mapping"], strict=True)
    ]
    assert salient_tokens(told["input_ids"], tokens) == expected
    assert any(expected)


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in ("llama2", "gptoss")])
def test_nothing_of_the_published_chat_template_is_salient(name: str) -> None:
    tokens: Any = tokenizer(name)
    question = "Where is the kite, and who flies it?"
    messages = [
        {"role": "user", "content": "Hm."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": question},
    ]
    text = tokens.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    begins = text.rindex(question)  # templates of their own may say more in front of the first turn
    told = tokens(text, return_offsets_mapping=True, add_special_tokens=False)
    found = [
        text[slice(*span)].strip()
        for span, salient in zip(told["offset_mapping"], salient_tokens(told["input_ids"], tokens), strict=True)
        if salient and span[0] >= text.rindex("Yes.") + len("Yes.")
    ]
    assert "".join(found) == "".join(question[a:b] for a, b in salient_spans(question)), (begins, found)
