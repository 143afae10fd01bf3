"""What a character is to the rule that finds words: a sign of the letter before it, a mark, an apostrophe, or itself.

Texts of every script. Combining signs (Unicode's category M: accents, vowel signs, viramas, points, tone marks) and
invisible format characters (joiners, soft hyphens, direction marks) belong to the letter they follow, as Unicode's
word boundaries have it (UAX #29, rule WB4).
"""

import re
import unicodedata

SIGN = "\u0300"  # every sign, in what `shape` returns

# What asks, calls or announces, in every script; what opens a sentence (inverted and initial marks) does none of it.
_QUESTION = "?？﹖︖\u037e՞؟፧᥅⳺⳻⸮⹔꘏꛷𑅃⁇❓❔🯄"
_EXCLAMATION = "!！﹗︕՜߹᥄⹓‼❕❗❢❣"
_BOTH = "‽⁈⁉🙹🙺🙻"
_COLON = ":：﹕︓∶܃܄܅܆܇܈܉፥፦៖᠄᭝꛴𒑱𒑲𝪊"
_MARK = re.compile(f"[{_QUESTION}{_EXCLAMATION}{_BOTH}{_COLON}]\ufe0f?")  # emoji among them carry a variation selector
# In Greek a semicolon asks: one that follows a word of Greek letters, whatever closes in between.
_GREEK = "[\u0370-\u037d\u037f-\u03ff\u1f00-\u1fff]"
_GREEK_QUESTION = re.compile(rf"{_GREEK}{SIGN}{{0,3}}{_GREEK}{SIGN}{{0,3}}[\W\d_]{{0,20}}?(;)")

_APOSTROPHES = "'’‘‛＇ʼ`´′"
_ARMENIAN = "՛՜՞"  # written over the vowel, inside the word
_ZERO_WIDTH_SPACE = "\u200b"  # ends a word, though it is a format character


class _Shapes(dict[int, str]):
    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in _ARMENIAN or category.startswith("M") or (category == "Cf" and char != _ZERO_WIDTH_SPACE):
            char = SIGN
        elif char in _APOSTROPHES:
            char = "'"
        elif char in _COLON:
            char = ":"
        elif char in _QUESTION + _EXCLAMATION + _BOTH:
            char = "?"
        self[code] = char
        return char


_shapes = _Shapes()


def shape(text: str) -> str:
    """`text` with the same length and letters, its signs as `SIGN`, its marks as "?" or ":", its apostrophes as "'"."""
    return text.translate(_shapes)


def marks(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of the marks of `text`, in order: every script's ? ! : and Greek's ;."""
    spans = [match.span() for match in _MARK.finditer(text)]
    if ";" in text:
        spans = sorted(spans + [match.span(1) for match in _GREEK_QUESTION.finditer(shape(text))])
    return spans


def plain(word: str) -> str:
    """`word` as it stands in a list of words: lower case, compatibility form, straight apostrophes, nothing unseen."""
    if word.isascii():
        return word.lower().replace("`", "'")
    straight = "".join("'" if char in _APOSTROPHES else char for char in word)
    composed = unicodedata.normalize("NFKC", straight).lower()
    return "".join(char for char in composed if unicodedata.category(char) != "Cf" and char not in _ARMENIAN)
