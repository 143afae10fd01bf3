"""Salient words: the built-in rule and the templates of chat prompts."""

import re
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import QUESTIONS, Text, chosen

from duet_vlm.errors import DuetError
from duet_vlm.stage2 import words
from duet_vlm.stage2.characters import plain
from duet_vlm.stage2.stop_words import LANGUAGES
from duet_vlm.stage2.words import check_language, finder, salient_spans


@pytest.fixture
def no_spacy(monkeypatch: pytest.MonkeyPatch):
    """The built-in rule, whatever is installed where the tests run."""
    monkeypatch.setattr(words, "_load_pipeline", lambda language: None)
    monkeypatch.setattr(words, "_pipelines", {})


# ---------------------------------------------------------------------------------------------- the built-in rule


def test_built_in_rule_agrees_with_the_annotation(no_spacy):
    agreed, total, differences = 0, 0, []
    for annotated in QUESTIONS:
        question = annotated.replace("*", "")
        spans = salient_spans(question)
        for star in re.finditer(r"[\w'-]+(\*?)", annotated):
            start = star.start() - annotated.count("*", 0, star.start())
            end = start + len(star[0].rstrip("*"))
            found = any(s < end and e > start for s, e in spans)
            total += 1
            agreed += found == bool(star[1])
            if found != bool(star[1]):
                differences.append(f"{question}: {star[0]!r}, the rule says {'salient' if found else 'not salient'}")
        assert [question[s:e] for s, e in spans if question[s:e] == "?"] == ["?"] * question.count("?")
    print(f"\n{agreed} of {total} words agree", *differences, sep="\n  ")
    assert len(QUESTIONS) >= 40
    assert agreed / total >= 0.97, differences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's the dog's name? Don't guess!", ["What", "dog", "?", "guess", "!"]),
        ("What’s it? It isn’t red", ["What", "?", "red"]),
        ("what ' s that ? don ' t know", ["what", "?", "know"]),
        ("Is the 3D screen at 42 or 7:30?", ["3D", "screen", ":", "?"]),
        ("a black-and-white t-shirt", ["black", "white", "t", "shirt"]),
        ("read snake_case", ["read", "snake", "case"]),
        ("une cafe\u0301tie\u0300re", ["une", "cafe\u0301tie\u0300re"]),
        ("图片里有什么颜色？红色：好", ["图片里有什么颜色", "？", "红色", "：", "好"]),
        ("... , -- 12 ;", []),
        ("", []),
    ],
)
def test_how_text_is_cut(no_spacy, text, expected):
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Welche Farbe hat das Auto hinter dem Baum?", ["Welche", "Farbe", "Auto", "Baum", "?"]),
        ("fr", "Qu'est-ce qu'il y a sur l'image ?", ["image", "?"]),
        ("fr", "Où est l’homme qui porte un chapeau rouge ?", ["Où", "homme", "qui", "porte", "chapeau", "rouge", "?"]),
        ("es", "¿De qué color es el perro pequeño?", ["qué", "color", "perro", "pequeño", "?"]),
        ("it", "Quanti gatti ci sono nell'immagine?", ["Quanti", "gatti", "immagine", "?"]),
        ("pt", "Onde está o menino com a camisa azul?", ["Onde", "menino", "camisa", "azul", "?"]),
        ("nl", "Welke kleur heeft de fiets naast het huis?", ["Welke", "kleur", "fiets", "huis", "?"]),
    ],
)
def test_salient_words_of_every_language(no_spacy, language, text, expected):
    assert chosen(text, language) == expected


def test_word_lists_are_well_formed():
    for language, rules in LANGUAGES.items():
        assert not rules.question_words & rules.stop_words, language
        for word in rules.question_words | rules.stop_words | rules.clitics:
            assert word == plain(word), (language, word)


@pytest.mark.parametrize(
    "language",
    ["xx", "english", "EN", "en-US", "en_US", "En ", "", None, ["en"], ("en",), {"en"}, {}, 5, 1.5, b"en", str],
)
def test_unknown_language_is_refused_in_one_sentence(no_spacy, language):
    for call in (
        lambda: check_language(language),
        lambda: salient_spans("", language),
        lambda: salient_spans("hi", language),
        lambda: finder(language),
    ):
        with pytest.raises(DuetError) as error:
            call()
        assert str(error.value) == (
            f"language {language!r} is not known: use one of de, en, es, fr, it, nl, pt, "
            "or install spaCy and a pipeline of that language."
        )


def test_every_language_of_the_lists_is_known(no_spacy):
    for language in LANGUAGES:
        check_language(language)
        assert finder(language) == "built-in rule"


def test_no_text_is_kept(no_spacy):
    text = Text("Is the red kite flying?")
    gone = weakref.ref(text)
    assert chosen(text) == ["red", "kite", "flying", "?"]
    del text
    assert gone() is None


# -------------------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize(
    "template",
    [
        "USER: <image>\n{}ASSISTANT:",
        "\n{} ASSISTANT:",
        "\n{} Please. Assistant:",
        "\n{} and assistant : ",
        "user : {} assistant :",
        "Human: <image>\n{}\nAssistant:",
        "### Human: <image>\n{}### Assistant:",
        "###Human: <image>\n{}\n###Assistant:",
        "User:<image>{}<end_of_utterance>\nAssistant:",
        "[INST] <image>\n{} [/INST]",
        "<s> [INST] <<SYS>>\n<</SYS>>{} [/INST]</s>",
        "<s>{}</s>",
        "<image><image>{}<|endoftext|>",
        "<|im_start|>user\n<image>\n{}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant",
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
        "[CLS] {} [SEP] [PAD]",
        "USER： {} ASSISTANT：",
    ],
)
def test_template_is_never_salient(no_spacy, template):
    question = "Where is the assistant: near the user?"
    text = template.format(question)
    start = text.index(question)
    assert salient_spans(text) == [(s + start, e + start) for s, e in salient_spans(question)]
    assert chosen(question) == ["Where", "assistant", ":", "user", "?"]


@settings(deadline=None)  # machines are slow at times
@given(st.text(), st.sampled_from(sorted(LANGUAGES)))
def test_spans_are_inside_the_text_and_in_order(text, language):
    end = 0
    for span in salient_spans(text, language):
        assert end <= span[0] < span[1] <= len(text)
        end = span[1]


@pytest.mark.parametrize(
    "part",
    [
        *["<", "[", " ", "\n", "a'", "a ' ", "user", "user ", "<start", "<a", "user:\n"],
        *["\u0301", "a\u0301", "ก็", "a\u200d", "\u200d", "՞", "α", "αβ", "αβ;", "α\u0301", "αβ 1", ";", "?"],
        *["❗\ufe0f", "a´", "।", "֑", "ﷺ"],
    ],
)
def test_no_text_is_slow(no_spacy, part):
    start = time.process_time()
    salient_spans(part * 10_000)
    assert time.process_time() - start < 5  # a rule that is quadratic takes a minute
