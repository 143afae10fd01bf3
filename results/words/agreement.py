"""How far the built-in rule for salient words agrees with a spaCy pipeline, on questions written for this.

    pip install -e ".[dev]"
    python results/words/agreement.py                               # questions.txt -> agreement.json
    python results/words/agreement.py development.txt development.json

Compared are words (runs of letters and digits; the marks are found by the same rule either way) and the tokens that
would ask, marks and the last token included, for a byte-level BPE of 2,000 entries learnt from the same questions.
spaCy's choice is the reference of precision and recall. The intervals are the middle 95% of 10,000 samples of as many
questions, drawn with replacement.
"""

import argparse
import collections
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from duet_vlm.stage2 import words
from duet_vlm.stage2.characters import shape

HERE = Path(__file__).parent
SAMPLES, SEED = 10_000, 0


def questions(name: str) -> list[tuple[str, str]]:
    """(kind, question) of every line below a heading; "\\n" stands for a line break."""
    found, kind = [], ""
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:]
        elif line:
            found.append((kind, line.replace("\\n", "\n")))
    return found


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def counts(built_in: list[bool], by_spacy: list[bool]) -> list[int]:
    """Both, the built-in rule alone, spaCy alone, neither."""
    pairs = collections.Counter(zip(built_in, by_spacy, strict=True))
    return [pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False]]


def rates(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Of counts (..., questions, 4): agreement, precision and recall (...)."""
    both, alone, missed, neither = np.moveaxis(rows.sum(-2), -1, 0)
    return {
        "agreement": (both + neither) / (both + alone + missed + neither),
        "precision": both / (both + alone),
        "recall": both / (both + missed),
    }


def summary(rows: list[list[int]]) -> dict[str, Any]:
    table = np.array(rows)
    drawn = np.random.default_rng(SEED).integers(len(table), size=(SAMPLES, len(table)))
    intervals = {
        name: np.quantile(values, [0.025, 0.975]).round(4).tolist() for name, values in rates(table[drawn]).items()
    }
    names = ("both", "built_in_alone", "spacy_alone", "neither")
    return dict(zip(names, table.sum(0).tolist(), strict=True)) | {
        name: {"value": round(float(value), 4), "interval": intervals[name]} for name, value in rates(table).items()
    }


def why(text: str, span: words.Span, by_rule: bool, tokens: Any) -> str:
    """The reason of a difference, in spaCy's terms."""
    inside = [token for token in tokens if token.idx < span[1] and span[0] < token.idx + len(token.text)]
    if len(inside) != 1 or (inside[0].idx, inside[0].idx + len(inside[0].text)) != span:
        return "cut otherwise: " + "|".join(token.text for token in inside)
    if not by_rule:
        return f"{inside[0].pos_}, stop word of the built-in rule alone"
    return f"{inside[0].pos_}, stop word of spaCy" if inside[0].is_stop else f"{inside[0].pos_}"


def measure(name: str) -> dict[str, Any]:
    asked = questions(name)
    pipeline = words._pipeline("en")
    if pipeline is None:
        raise SystemExit("No spaCy pipeline of English is installed: pip install -e '.[dev]'.")
    tokenizer = tokenizer_of([text for _, text in asked])
    word_rows, token_rows, differences, equal = [], [], [], 0
    for kind, text in asked:
        spans, flags = {}, {}
        ids = tokenizer.encode(text)
        for finder, chosen in (("spacy", pipeline), ("rule", None)):
            words._pipelines["en"] = chosen
            spans[finder] = words.salient_spans(text)
            flags[finder] = [*words.salient_tokens(ids, tokenizer)[:-1], True]
        words._pipelines["en"] = pipeline
        units = [part.span() for part in words._PART.finditer(shape(text))]
        found = {
            finder: [any(start < e and s < end for s, e in spans[finder]) for start, end in units]
            for finder in spans
        }  # fmt: skip
        word_rows.append(counts(found["rule"], found["spacy"]))
        token_rows.append(counts(flags["rule"], flags["spacy"]))
        equal += found["rule"] == found["spacy"]
        tokens = pipeline(text)
        for span, rule, by_spacy in zip(units, found["rule"], found["spacy"], strict=True):
            if rule != by_spacy:
                differences.append(
                    {
                        "word": text[slice(*span)],
                        "salient_for": "built-in rule" if rule else "spaCy",
                        "why": why(text, span, rule, tokens),
                        "kind": kind,
                        "question": text,
                    }
                )
    return {
        "questions": name,
        "count": len(asked),
        "reference": words.finder("en"),
        "seed": SEED,
        "samples": SAMPLES,
        "words": summary(word_rows),
        "tokens": summary(token_rows),
        "questions_with_the_same_words": equal,
        "differences": differences,
        "versions": {"python": platform.python_version(), "spacy": spacy.__version__, "numpy": np.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="?", default="questions.txt", help="a file of this folder")
    parser.add_argument("out", nargs="?", default="agreement.json", help="a file of this folder")
    options = parser.parse_args()
    found = measure(options.questions)
    (HERE / options.out).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for level in ("words", "tokens"):
        for rate in ("agreement", "precision", "recall"):
            value = found[level][rate]
            print(f"{level}: {rate} {value['value']:.1%} ({value['interval'][0]:.1%} to {value['interval'][1]:.1%})")
    print(f"{found['questions_with_the_same_words']} of {found['count']} questions have the same words")
    for (finder, word), number in collections.Counter(
        (d["salient_for"], d["word"].lower()) for d in found["differences"]
    ).most_common(25):
        print(f"{number:4d}  {word!r} for {finder} alone")


if __name__ == "__main__":
    main()
