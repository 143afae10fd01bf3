"""From tokens to characters and from salient words to tokens, for every kind of tokenizer."""

import random
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import BUILDERS, CORPUS, SlowBytes, built, byte_level_bpe, sentencepiece_bpe

from duet_vlm.stage2 import words
from duet_vlm.stage2.words import salient_spans, salient_tokens, token_spans

PROMPT = "USER: <image>\nWhat is the man on the left holding? ASSISTANT:"


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def tokenizer(request):
    return built(request.param)


@pytest.fixture(autouse=True)
def no_spacy(monkeypatch):
    """The built-in rule, whatever is installed where the tests run."""
    monkeypatch.setattr(words, "_load_pipeline", lambda language: None)
    monkeypatch.setattr(words, "_pipelines", {})


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def check_cover(text: str, spans: list[tuple[int, int]]) -> None:
    """In order, from the start of the text to its end, without a gap; at most one character is shared by neighbours."""
    reached = last = 0
    for start, end in spans:
        assert last <= start <= reached <= max(reached, end) <= len(text) and start <= end
        assert reached - start <= 1
        last, reached = start, max(reached, end)
    assert reached == len(text)


def test_the_text_is_what_the_tokenizer_decodes(tokenizer):
    for text in [PROMPT, *CORPUS[:6], "<s>" + CORPUS[0] + "</s>", " two  spaces \n\n lines", "<image>" * 5]:
        ids = encode(tokenizer, text)
        decoded, spans = token_spans(ids, tokenizer)
        assert decoded == tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert len(spans) == len(ids)
        check_cover(decoded, spans)


def test_no_tokens(tokenizer):
    assert token_spans([], tokenizer) == ("", [])
    assert salient_tokens([], tokenizer) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_spans_of_any_text_cover_it(builder, data):
    tokenizer = built(builder)
    text = data.draw(st.text(max_size=40) | st.text(alphabet="aé▁ \n日本👩\u200d🚀\u0301?'", max_size=20))
    ids = encode(tokenizer, text)
    decoded, spans = token_spans(ids, tokenizer)
    check_cover(decoded, spans)
    assert len(spans) == len(ids) == len(salient_tokens(ids, tokenizer))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("builder", [byte_level_bpe, sentencepiece_bpe], ids=lambda builder: builder.__name__)
def test_spans_of_any_tokens_cover_their_text(builder, data):
    """Also tokens that are no text: half characters, bytes out of order."""
    tokenizer = built(builder)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    check_cover(*token_spans(ids, tokenizer))


@pytest.mark.parametrize("builder", [byte_level_bpe, sentencepiece_bpe], ids=lambda builder: builder.__name__)
def test_the_bytes_of_one_character_share_its_span(builder):
    tokenizer = built(builder)
    text = "a 🚀 日 b"
    ids = encode(tokenizer, text)
    decoded, spans = token_spans(ids, tokenizer)
    assert decoded == text
    rocket, day = text.index("🚀"), text.index("日")
    assert spans.count((rocket, rocket + 1)) == 4 and spans.count((day, day + 1)) == 3
    assert salient_tokens(ids, tokenizer) == [start == day or decoded[start:end].strip() == "b" for start, end in spans]


@pytest.mark.parametrize("builder", [byte_level_bpe, sentencepiece_bpe, SlowBytes], ids=lambda made: made.__name__)
@pytest.mark.parametrize(
    ("text", "asking"),
    [
        ("यह कौन सा?", ["यह", "कौन", "सा", "?"]),
        ("দুটি বিড়াল?", ["দুটি", "বিড়াল", "?"]),
        ("என்ன நிறம்?", ["என்ன", "நிறம்", "?"]),
        ("สีอะไร ที่นี่", ["สีอะไร", "ที่นี่"]),
        ("لَوْنُ السَّيَّارَةِ؟", ["لَوْنُ", "السَّيَّارَةِ", "؟"]),
        ("מָה הַצֶּבַע?", ["מָה", "הַצֶּבַע", "?"]),
        ("می\u200cخواهد؟", ["می\u200cخواهد", "؟"]),
        ("the cafe\u0301s of the", ["cafe\u0301s"]),
        ("is the 🚀 a dog⁉\ufe0f", ["dog", "⁉\ufe0f"]),
        ("Ո՞վ; the 𞥟 the 𑅃", ["Ո՞վ", "𑅃"]),
        ("του σκύλου;", ["του", "σκύλου", ";"]),
        ("the 图里有什么︖ the", ["图里有什么", "︖"]),
    ],
)
def test_every_byte_of_an_asking_word_asks_and_no_other(builder, text, asking):
    """Against the bytes of the words and those of each token."""
    tokenizer = built(builder)
    expected, at = bytearray(len(text.encode())), 0
    for word in asking:
        at = text.index(word, at)
        start, at = at, at + len(word)
        places = slice(len(text[:start].encode()), len(text[:at].encode()))
        expected[places] = b"\1" * len(expected[places])
    ids, flags = encode(tokenizer, text), []
    done = -1 if builder is sentencepiece_bpe else 0  # it puts a space in front
    for token in tokenizer.convert_ids_to_tokens(ids):
        flags.append(any(expected[max(0, done) : done + bytes_of(builder, token)]))
        done += bytes_of(builder, token)
    assert done == len(expected) and any(flags)
    assert salient_tokens(ids, tokenizer) == flags


def bytes_of(builder, token: str) -> int:
    if builder is SlowBytes:
        return len(token) // 2
    if builder is byte_level_bpe:
        return len(token)
    return 1 if token.startswith("<0x") else len(token.replace("▁", " ").encode())


def test_tokens_of_salient_words(tokenizer):
    ids = encode(tokenizer, PROMPT)
    text, spans = token_spans(ids, tokenizer)
    marked = salient_tokens(ids, tokenizer)
    expected = ["what", "man", "left", "holding", "?"]
    characters = [any(s <= i < e for s, e in salient_spans(text)) for i in range(len(text))]
    assert [text[s:e].lower() for s, e in salient_spans(text)] == expected
    for (start, end), salient in zip(spans, marked, strict=True):
        assert salient == any(characters[start:end])
    covered = "".join(text[s:e] for (s, e), salient in zip(spans, marked, strict=True) if salient)
    for word in expected:
        assert word in covered.lower()


def test_special_tokens_are_never_salient(tokenizer):
    ids = encode(tokenizer, "<s>dog<image>" + CORPUS[0] + "</s>")
    special = set(tokenizer.all_special_ids)
    marked = salient_tokens(ids, tokenizer)
    assert any(marked) and not any(salient for token, salient in zip(ids, marked, strict=True) if token in special)


def test_a_processor_and_a_tensor_will_do():
    torch = pytest.importorskip("torch")
    tokenizer = built(byte_level_bpe)
    processor = SimpleNamespace(tokenizer=tokenizer)
    ids = encode(tokenizer, PROMPT)
    assert token_spans(torch.tensor(ids), processor) == token_spans(ids, tokenizer)
    assert salient_tokens(torch.tensor(ids), processor) == salient_tokens(ids, tokenizer)


def test_the_time_is_linear():
    """Counted in decoded tokens rather than in seconds."""
    tokenizer = built(sentencepiece_bpe)
    decoded = []

    def decode(ids, **options):
        decoded.append(len(ids))
        return tokenizer.decode(ids, **options)

    counting = SimpleNamespace(decode=decode)
    ids = random.Random(0).choices(range(len(tokenizer)), k=4000)  # nothing repeats, most bytes are no characters
    start = time.perf_counter()
    check_cover(*token_spans(ids, counting))
    print(f"\n{len(ids)} tokens: {(time.perf_counter() - start) * 1e3:.0f} ms, {sum(decoded)} decoded")
    assert sum(decoded) <= 100 * len(ids)  # whole prefixes would be 2,000 times
    decoded.clear()
    token_spans(encode(tokenizer, "<image>") * 2880, counting)
    assert len(decoded) <= 8  # repeated placeholders are decoded once
