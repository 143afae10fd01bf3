"""One small tokenizer of every kind, made on the fly: five fast ones and two in Python."""

import json
import re
from collections.abc import Callable
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<unk>", "<image>"]
CORPUS = [
    "What color is the car parked next to the fire hydrant?",
    "Is there a dog in the image? Don't guess!",
    "How many people are wearing hats? Answer with a single word.",
    "What is the man on the left holding, an umbrella or a bag?",
    "Where is the café? Near the old town's naïve theatre.",
    "USER: describe the scene ASSISTANT: a boy, two girls",
] * 4


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )


def byte_level_bpe() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=SPECIAL,
            show_progress=False,
        ),
    )
    return fast(tokenizer)


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """As the Llama tokenizer: spaces written as a mark, unknown characters as bytes, the first space stripped."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + sorted(model["vocab"], key=model["vocab"].get)
    tokenizer = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            [tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(tokenizer)


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", special_tokens=SPECIAL, show_progress=False),
    )
    return fast(tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False)
    )
    return fast(tokenizer)


def word_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return fast(tokenizer)


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python; its tokens are numbered as they are met."""

    def __init__(self) -> None:
        self.pieces = list(SPECIAL)
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", additional_special_tokens=["<image>"])

    @property
    def vocab_size(self) -> int:
        return 100_000

    def get_vocab(self) -> dict[str, int]:
        return {piece: index for index, piece in enumerate(self.pieces)}

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self.pieces:
            self.pieces.append(token)
        return self.pieces.index(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]


class SlowBytes(SlowTokenizer):
    """Tokens of two bytes, wherever a character ends."""

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        data = text.encode()
        return [data[i : i + 2].hex() for i in range(0, len(data), 2)]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        data = [token.encode() if token in SPECIAL else bytes.fromhex(token) for token in tokens]
        return b"".join(data).decode(errors="replace")


class SlowPieces(SlowTokenizer):
    """Pieces of a word, a mark for a space; as several tokenizers do, it strips what it decodes at both ends."""

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        return re.findall(r"▁?[^\W_]{1,3}|[^▁]|▁", text.replace(" ", "▁"))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace("▁", " ").strip(" ")


BUILDERS: list[Callable] = [
    byte_level_bpe, sentencepiece_bpe, unigram, word_piece, word_level, SlowBytes, SlowPieces,
]  # fmt: skip


@cache
def built(builder: Callable) -> PreTrainedTokenizer | PreTrainedTokenizerFast:
    return builder()
