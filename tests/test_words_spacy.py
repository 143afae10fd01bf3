"""Salient words where spaCy is installed: a stub in its place, and spaCy itself if it is there."""

import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from duet_vlm import words
from duet_vlm.words import salient_spans


def chosen(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in salient_spans(text, language)]


@pytest.fixture(autouse=True)
def nothing_remembered():
    words._salient_spans.cache_clear()
    yield
    words._salient_spans.cache_clear()


def use_pipeline(monkeypatch: pytest.MonkeyPatch, pipeline) -> None:
    monkeypatch.setattr(words, "_load_pipeline", lambda language: pipeline)
    monkeypatch.setattr(words, "_pipelines", {})


class StubPipeline:
    """Speaks spaCy's token interface: every word a noun, but for a table; "not" and "the" are stop words."""

    def __init__(self, **parts_of_speech: str) -> None:
        self.parts_of_speech, self.seen = parts_of_speech, []

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
    count = len(pipeline.seen)
    chosen(text)
    assert len(pipeline.seen) == count  # remembered


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
    untagged = StubPipeline(**{"a": "", "1": "", "?": ""})
    fake_spacy(monkeypatch, {"en_core_web_sm": untagged, "en_mine": custom})
    assert words._load_pipeline("en") is custom
    fake_spacy(monkeypatch, {"en_core_web_sm": OSError("written by spaCy 2")})
    with pytest.warns(UserWarning, match="en_core_web_sm cannot be loaded and is not used: written by spaCy 2"):
        assert words._load_pipeline("en") is None
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    assert words._load_pipeline("en") is None


def test_real_spacy(monkeypatch):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install duet-vlm[spacy]")
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"IS_ALPHA": True}]], {"POS": "NOUN"})
    ruler.add([[{"LOWER": {"IN": ["seven"]}}]], {"POS": "NUM"})
    ruler.add([[{"LOWER": {"IN": ["red", "old"]}}]], {"POS": "ADJ"})
    use_pipeline(monkeypatch, nlp)
    text = "<image>\nWhat's the red, not old, sign in front of seven dogs: isn't it? ASSISTANT:"
    assert chosen(text) == ["What", "red", "old", "sign", "dogs", ":", "?"]
    built_in = words._built_in_rule("What is the red old sign ?", "en")
    assert salient_spans("What is the red old sign ?") == built_in
