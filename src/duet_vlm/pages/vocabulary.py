"""The tokens of the model for pages: a token a word, and one for each digit of a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..demo.vocabulary import SPECIALS, UNKNOWN, of_words
from .asking import question_words
from .words import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DIGITS = tuple("0123456789")
PAGE_WORDS = words()
# a digit behind another one is a token of its own, so that "47" is read back without a space in it
TOKENS: tuple[str, ...] = (
    *SPECIALS, *DIGITS, *(f"##{digit}" for digit in DIGITS), *PAGE_WORDS, *question_words(),
)  # fmt: skip
IDS = {token: i for i, token in enumerate(TOKENS)}


def tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer: lower case, a token a word or mark, a token a digit, <unk> for all other words."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    core = Tokenizer(models.WordPiece(IDS, unk_token=UNKNOWN, continuing_subword_prefix="##"))
    core.normalizer = normalizers.Lowercase()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return of_words(core)


def encode(text: str) -> list[int]:
    """Token ids of a question or an answer, as the tokenizer gives them (words are separated by spaces here)."""
    ids = []
    for word in text.split():
        if word.isdigit():
            ids += [IDS[digit if i == 0 else f"##{digit}"] for i, digit in enumerate(word)]
        else:
            ids.append(IDS[word])
    return ids
