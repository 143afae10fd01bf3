"""How VQA normalises answers before it compares them (https://visualqa.org/evaluation.html)."""

from __future__ import annotations

import re

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # an apostrophe may be a possessive, a colon a time
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
# the contractions that get an apostrophe back; words that are words without it (its, well, shell) are not among them
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll "
    "why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)


def _without_one_apostrophe() -> dict[str, str]:
    repaired = {}
    for word in _CONTRACTED.split():
        for i, letter in enumerate(word):
            if letter == "'":
                repaired[word[:i] + word[i + 1 :]] = word
    return repaired


_REPAIRED = _without_one_apostrophe()


def normalize(text: str) -> str:
    """Lower case; no punctuation, articles or full stops (decimals stay); numbers to ten as digits; apostrophes back.

    A mark with a space beside it goes, others become a space; where a comma stands between digits, all marks go.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    inside_number = re.search(r"\d,\d", text) is not None
    plain = text
    for mark in _PUNCTUATION:
        goes = inside_number or mark + " " in text or " " + mark in text
        plain = plain.replace(mark, "" if goes else " ")
    plain = re.sub(r"\.(?!\d)", "", plain)
    words = [_NUMBERS.get(word, word) for word in plain.lower().split()]
    return " ".join(_REPAIRED.get(word, word) for word in words if word not in _ARTICLES)
