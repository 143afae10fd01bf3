"""Words and marks of every script, as the built-in rule finds them."""

import re
import unicodedata

import pytest
from questions import chosen

from duet_vlm.stage2 import words


@pytest.fixture(autouse=True)
def no_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in rule, whatever is installed where the tests run."""
    monkeypatch.setattr(words, "_pipelines", dict.fromkeys(words.LANGUAGES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("यह कौन सा जानवर है?", ["यह", "कौन", "सा", "जानवर", "है", "?"]),  # Hindi
        ("ছবিতে কয়টি বিড়াল আছে?", ["ছবিতে", "কয়টি", "বিড়াল", "আছে", "?"]),  # Bengali
        ("இது என்ன நிறம்?", ["இது", "என்ன", "நிறம்", "?"]),  # Tamil
        ("ఇది ఏ రంగు?", ["ఇది", "ఏ", "రంగు", "?"]),  # Telugu
        ("ਇਹ ਕੀ ਹੈ?", ["ਇਹ", "ਕੀ", "ਹੈ", "?"]),  # Punjabi
        ("ඉතා ශ්\u200dරී ලංකා?", ["ඉතා", "ශ්\u200dරී", "ලංකා", "?"]),  # Sinhala, a joiner inside
        ("นี่คือสีอะไร ที่นี่", ["นี่คือสีอะไร", "ที่นี่"]),  # Thai
        ("ນີ້ແມ່ນຫຍັງ?", ["ນີ້ແມ່ນຫຍັງ", "?"]),  # Lao
        ("នេះជាអ្វី?", ["នេះជាអ្វី", "?"]),  # Khmer
        ("ဒါ ဘာလဲ?", ["ဒါ", "ဘာလဲ", "?"]),  # Burmese
        ("མིང་ལ", ["མིང", "ལ"]),  # Tibetan: a mark between syllables
        ("مَا لَوْنُ السَّيَّارَةِ؟", ["مَا", "لَوْنُ", "السَّيَّارَةِ", "؟"]),  # Arabic with vowels
        ("این چه می\u200cخواهد؟", ["این", "چه", "می\u200cخواهد", "؟"]),  # Persian, a non-joiner inside
        ("מָה הַצֶּבַע?", ["מָה", "הַצֶּבַע", "?"]),  # Hebrew with points
        ("ܡܳܢܳܐ ܗܳܢܳܐ؟", ["ܡܳܢܳܐ", "ܗܳܢܳܐ", "؟"]),  # Syriac
        ("ދިވެހި ކޮބާ؟", ["ދިވެހި", "ކޮބާ", "؟"]),  # Thaana
        ("Τι χρώμα έχει ο σκύλος;", ["Τι", "χρώμα", "έχει", "ο", "σκύλος", ";"]),  # Greek, typed with a semicolon
        ("Τι είναι αυτό\u037e", ["Τι", "είναι", "αυτό", "\u037e"]),  # and with the Greek question mark
        ("Είναι «σκύλος»; Ναι; 3;", ["Είναι", "σκύλος", ";", "Ναι", ";"]),
        ("Ո՞վ է սա", ["Ո՞վ", "է", "սա"]),  # Armenian: the mark stands over the vowel
        ("ይህ ምንድን ነው፧", ["ይህ", "ምንድን", "ነው", "፧"]),  # Amharic
        ("ꕉꕜ꘏", ["ꕉꕜ", "꘏"]),  # Vai
        ("か\u3099くせい は？", ["か\u3099くせい", "は", "？"]),  # Japanese, a voicing sign of its own
        ("图里有几只猫︖", ["图里有几只猫", "︖"]),  # Chinese, written from top to bottom
        ("\u1100\u1161\u11a8 뭐?", ["\u1100\u1161\u11a8", "뭐", "?"]),  # Korean, letter by letter
        ("tiê\u0301ng Viê\u0323t gi\u0300?", ["tiê\u0301ng", "Viê\u0323t", "gi\u0300", "?"]),  # Vietnamese
        ("the col\u00adour of th\u00ade hat", ["col\u00adour", "hat"]),  # soft hyphens
        ("the\u200f dog\u200f", ["dog\u200f"]),  # a direction mark is nothing of a stop word
        ("one\u200bdog", ["dog"]),  # a space of no width is one
        ("Ｗｈａｔ ｉｓ ｔｈｅ ｄｏｇ？", ["Ｗｈａｔ", "ｄｏｇ", "？"]),  # full width
        ("\u0301 \u200d \ufe0f \u093e", []),  # signs of no letter
        ("3\ufe0f\u20e3 dogs ٣ ३ Ⅳ ½", ["dogs"]),  # numbers have no letter
        ("What is 👩\u200d🚀 👍🏽 🇫🇷 ❤\ufe0f doing❓", ["What", "❓"]),  # emoji are no words
        ("Stop❗\ufe0f now ‽", ["Stop", "❗\ufe0f", "‽"]),
        ("red; green; a, b", ["red", "green", "b"]),  # a semicolon asks in Greek alone
        ("¿Qué? ¡No! ⸘what‽", ["Qué", "?", "!", "what", "‽"]),  # what opens a sentence does not ask
    ],
)
def test_words_and_marks_of_every_script(text, expected):
    assert chosen(text) == expected


ASSIGNED = [char for char in map(chr, range(0x110000)) if unicodedata.name(char, "")]


def test_every_combining_sign_belongs_to_its_word():
    signs = [char for char in ASSIGNED if unicodedata.category(char) in ("Mn", "Mc", "Me")]
    assert len(signs) > 2000
    text = " ".join(f"b{sign}x" for sign in signs)
    assert chosen(text) == text.split(" ")


def test_every_mark_that_unicode_names_is_one():
    named = re.compile(r"\b(QUESTION MARK|EXCLAMATION MARK|INTERROBANG|QUESTION EXCLAMATION|COLON)\b")
    opening = re.compile("INVERTED|INITIAL")
    punctuation = [char for char in ASSIGNED if unicodedata.category(char) == "Po"]
    marked = [char for char in punctuation if named.search(unicodedata.name(char))]
    marked = [char for char in marked if not opening.search(unicodedata.name(char))]
    over_a_vowel = {"\u055b", "\u055c", "\u055e"}  # Armenian
    assert len(marked) > 40
    for char in marked:
        assert "".join(chosen(f"is a dog{char}")) == f"dog{char}", unicodedata.name(char)
        assert chosen(f"the {char} the") == [char]
    further = {"\u17d6", "\u1b5d"}  # colons by their notes in the standard, not by their names
    for char in set(punctuation) - set(marked) - over_a_vowel - further - set("&@#%*\\/"):
        assert chosen(f"is a dog{char} ") == ["dog"], unicodedata.name(char)


@pytest.mark.parametrize("apostrophe", "'’‘‛＇ʼ`´′")
def test_every_apostrophe_joins_a_stop_word(apostrophe):
    text = f"What{apostrophe}s it? It isn{apostrophe}t the dog{apostrophe}s bone"
    assert chosen(text) == ["What", "?", "dog", "bone"]
