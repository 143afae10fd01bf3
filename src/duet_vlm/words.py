"""Salient words of a question, and the tokens that hold them (METHOD.md, stage 2, step 1; DUET-VLM, arXiv 2602.18846).

Salient are the question words, the marks ? ! :, and the nouns, proper nouns, pronouns, verbs, adjectives and adverbs
that are no stop words. With spaCy and a pipeline of the language installed, the parts of speech and the stop words are
spaCy's. Without, the built-in rule takes every word that has a letter and is no stop word (`duet_vlm.stop_words`).

How text is cut by the built-in rule: a hyphen separates words ("t-shirt" is "t" and "shirt"); an apostrophe joins what
is one stop word ("don't") and otherwise separates, and what it leaves of a clitic is no word ("what's" is "what");
a number has no letter and is not salient, "3D" is; text written without spaces (Chinese, Japanese, Thai) counts as one
word from one mark or space to the next, so for it install spaCy and a pipeline of its language.
Role markers of chat templates ("USER:", "### Assistant:", "<|im_start|>assistant", "[INST]") and special tokens
("</s>", "<image>") are template, not question: nothing in them is salient.
"""

import importlib.util
import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from .errors import DuetError
from .stop_words import LANGUAGES

Span = tuple[int, int]

_PARTS_OF_SPEECH = frozenset({"NOUN", "PROPN", "PRON", "VERB", "ADJ", "ADV"})
_MARKS = frozenset("?!:？！：")

# \w without the underscore; combining accents belong to the letter they follow.
_WORD = r"(?:[^\W_][\u0300-\u036f]*)+"
# An apostrophe joins, also with a space on both sides, as tokenizers that split at marks decode it ("don ' t").
_PIECE = re.compile(rf"{_WORD}(?:(?:['’]| ['’] ){_WORD})*|[{''.join(_MARKS)}]")
_PART = re.compile(_WORD)

_ROLES = "user|assistant|system|human|gpt|bot|model|tool|developer|ipython"
_TEMPLATE = re.compile(  # every repeat is bounded, so that the time is linear in the text
    r"<[^<>\s]{0,30}(?:start|header|turn|role)[^<>\s]{0,30}>\s{0,4}"
    rf"(?:(?i:{_ROLES})(?=\s{{0,4}}(?:<|\n|\Z)))?"  # <|im_start|>assistant, <start_of_turn>model
    r"|<{1,2}[^<>\s]{1,60}>{1,2}"  # </s>, <image>, <|im_end|>, <<SYS>>
    r"|\[ ?/? ?(?:INST|SYSTEM_PROMPT|CLS|SEP|PAD|UNK|MASK|BOS|EOS|IMG|IMG_BREAK|IMG_END) ?\]"
    rf"|(?:(?<=[\n.?!>\]#])|\A)\s{{0,4}}(?i:{_ROLES})\s?:"  # Human: at the start of a sentence, ### Assistant:
    r"|(?<!\w)(?:USER|ASSISTANT|SYSTEM|HUMAN)\s?:"
    rf"|(?<!\w)(?i:{_ROLES})\s?:(?=\s{{0,4}}\Z)"  # where the answer begins
)

_lock = threading.Lock()
_pipelines: dict[str, Callable[[str], Any] | None] = {}


def check_language(language: str) -> None:
    """Raise a ValueError if neither the built-in rule nor an installed spaCy pipeline knows `language`."""
    if language not in LANGUAGES and _pipeline(language) is None:
        raise DuetError(
            f"language {language!r} is not known: use one of {', '.join(sorted(LANGUAGES))}, "
            "or install spaCy and a pipeline of that language."
        )


def salient_spans(text: str, language: str = "en") -> list[Span]:
    """Character spans (start, end) of the salient words of `text`, in order, without overlap.

    `language` is an ISO 639-1 code. ValueError if it is not known (see `check_language`).
    """
    return list(_salient_spans(text, language))


def token_spans(ids: Sequence[int], tokenizer: Any) -> tuple[str, list[Span]]:
    """Decode `ids` and find the characters of every token.

    Returns the text, special tokens included and spaces as they are, and per token its span (start, end) in it. The
    spans cover the text in order. Tokens that hold parts of one character all span that character; a token that adds
    no text has an empty span. `tokenizer` is any fast or slow tokenizer of transformers, or a processor that has one.

    Tokens are decoded in a short window behind the previous ones, because what a token reads as depends on its
    neighbours (spaces, bytes of one character); the time is linear in the number of tokens.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    ids = [int(token) for token in ids]
    decoded: dict[tuple[int, ...], str] = {}  # image placeholders repeat by the hundred

    def decode(first: int, end: int) -> str:
        window = tuple(ids[first:end])
        if window not in decoded:
            decoded[window] = tokenizer.decode(
                list(window), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        return decoded[window]

    text: list[str] = []
    spans: list[Span] = []
    length = first = done = 0  # characters so far; window start; tokens that have a span
    before = ""  # how the tokens first..done-1 read alone
    drafts: list[str] = []  # how the tokens from `done` on read, one entry as each came in
    for end in range(1, len(ids) + 1):
        drafts.append(decode(first, end)[len(before) :])
        waiting = not drafts[-1] or drafts[-1].endswith("\ufffd")  # no text yet, or a part of a character
        if waiting and len(drafts) < 32 and end < len(ids):
            continue
        spans += [(length + start, length + stop) for start, stop in _split(drafts)]
        text.append(drafts[-1])
        length += len(drafts[-1])
        first, done, drafts = done, end, []
        before = decode(first, done)
    return "".join(text), spans


def salient_tokens(ids: Sequence[int], tokenizer: Any, language: str = "en") -> list[bool]:
    """For each token of `ids`, whether it holds a character of a salient word. Special tokens never do.

    A space that a token carries before its word does not matter. ValueError if `language` is not known.
    """
    text, tokens = token_spans(ids, tokenizer)
    special = set(getattr(getattr(tokenizer, "tokenizer", tokenizer), "all_special_ids", ()))
    words = _salient_spans(text, language)
    salient, word = [], 0
    for token, (start, end) in zip(ids, tokens, strict=True):
        while word < len(words) and words[word][1] <= start:
            word += 1
        salient.append(int(token) not in special and start < end and word < len(words) and words[word][0] < end)
    return salient


def _split(drafts: list[str]) -> list[Span]:
    """Spans, in the last draft, of tokens that came in one by one and read as `drafts` on the way."""
    spans, start = [], 0
    for draft in drafts:
        same = next((i for i, (a, b) in enumerate(zip(draft, drafts[-1], strict=False)) if a != b), None)
        if same is None:
            same = stop = min(len(draft), len(drafts[-1]))
        else:
            stop = same + 1  # the draft ends in a part of this character
        spans.append((start, max(start, stop)))
        start = max(start, same)
    return spans


@lru_cache(maxsize=256)
def _salient_spans(text: str, language: str) -> tuple[Span, ...]:
    check_language(language)
    # Blanked rather than cut, so that offsets hold.
    question = _TEMPLATE.sub(lambda match: " " * len(match[0]), text)
    pipeline = _pipeline(language)
    return tuple(_built_in_rule(question, language) if pipeline is None else _by_spacy(question, language, pipeline))


def _built_in_rule(text: str, language: str) -> list[Span]:
    rules = LANGUAGES[language]
    spans: list[Span] = []
    for piece in _PIECE.finditer(text):
        if piece[0] in _MARKS:
            spans.append(piece.span())
            continue
        if _normal(piece[0]).replace(" ", "") in rules.stop_words:
            continue
        parts = list(_PART.finditer(text, *piece.span()))
        for part in parts:
            word = _normal(part[0])
            stop = word in rules.stop_words or (len(parts) > 1 and word in rules.clitics)
            if word in rules.question_words or (not stop and any(c.isalpha() for c in word)):
                spans.append(part.span())
    return spans


def _by_spacy(text: str, language: str, pipeline: Callable[[str], Any]) -> list[Span]:
    question_words = LANGUAGES[language].question_words if language in LANGUAGES else frozenset()
    with _lock:  # a pipeline writes new words into its vocabulary
        return [
            (token.idx, token.idx + len(token.text))
            for token in pipeline(text)
            if token.text in _MARKS
            or _normal(token.text) in question_words
            or (token.pos_ in _PARTS_OF_SPEECH and not token.is_stop)
        ]


def _normal(word: str) -> str:
    return unicodedata.normalize("NFC", word).lower().replace("’", "'")


def _pipeline(language: str) -> Callable[[str], Any] | None:
    """The installed spaCy pipeline of `language`, loaded on first use; None without spaCy or a pipeline that tags."""
    with _lock:
        if language not in _pipelines:
            _pipelines[language] = _load_pipeline(language)
        return _pipelines[language]


def _load_pipeline(language: str) -> Callable[[str], Any] | None:
    if importlib.util.find_spec("spacy") is None:
        return None
    import spacy

    sizes = ("sm", "md", "lg", "trf")  # the smallest first: questions are short and wait for the answer
    names = [name for name in spacy.util.get_installed_models() if name.split("_")[0] == language]
    for name in sorted(names, key=lambda name: ([not name.endswith(size) for size in sizes], name)):
        try:
            pipeline = spacy.load(name, exclude=["ner", "lemmatizer", "textcat"])
            if any(token.pos_ for token in pipeline("a 1 ?")):
                return pipeline
        except (OSError, ValueError, ImportError) as error:
            warnings.warn(f"The spaCy pipeline {name} cannot be loaded and is not used: {error}", stacklevel=2)
    return None
