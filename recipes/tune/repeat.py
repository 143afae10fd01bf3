"""Repeat `duet tune` on draws from a pool of answers, and judge every choice on the questions that it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from duet_vlm.config.decoder_shape import DecoderShape
from duet_vlm.demo.model import config
from duet_vlm.measuring.timing import hardware, versions
from duet_vlm.tuning.choosing import Choice, choose
from duet_vlm.tuning.judged import Asked, Judged
from duet_vlm.tuning.tune import THRESHOLDS

TEXT_TOKENS = 20  # beside an image; about that of these questions
FULL = "none"


class Pool:
    """What every setting answered to every question.

    Args:
        file: as `recipes.tune.pool` wrote it.
    """

    def __init__(self, file: Path):
        batches = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        self.sources = [str(one) for batch in batches for one in batch["sources"]]
        self.right = np.array([one for batch in batches for one in batch["right"]])
        names = batches[0]["settings"]
        self.answers = {n: np.array([x for b in batches for x in b["settings"][n]["answers"]]) for n in names}
        self.margins = {n: np.array([x for b in batches for x in b["settings"][n]["margins"]]) for n in names}
        self.tokens = {n: batches[0]["settings"][n]["tokens"] for n in names}
        shape = DecoderShape.of(config())
        self.cost = {n: shape.prefill_flops([t + TEXT_TOKENS for t in self.tokens[n]]) for n in names}

    @property
    def settings(self) -> list[str]:
        return [name for name in self.answers if name != FULL]

    def mean_tokens(self, name: str) -> float:
        """Visual tokens of a layer."""
        return float(np.mean(self.tokens[name]))

    def judged(self, name: str, places: Sequence[int], agree: bool) -> Judged:
        """A setting on some questions."""
        at = np.asarray(places, int)
        ours, full = self.answers[name][at], self.answers[FULL][at]
        kept, whole = (ours == full, np.ones(len(at))) if agree else (ours == self.right[at], full == self.right[at])
        costs = [np.full(len(at), float(self.cost[one])) for one in (name, FULL)]
        sources = [self.sources[place] for place in places]
        return Judged(kept.astype(float), whole.astype(float), costs[0], costs[1], sources, self.margins[name][at])


def main(
    pool_file: Annotated[Path, typer.Option("--pool", help="What recipes.tune.pool wrote.")],
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")],
    repetitions: Annotated[int, typer.Option(help="How often.", min=1)] = 20,
    part: Annotated[float, typer.Option(help="Share of the images that a repetition draws.")] = 0.5,
) -> None:
    """Choose with --retain 0.97 and 0.99, and with --agree 0.98, at a confidence of 0.9, and count kept promises."""
    pool = Pool(pool_file)
    goals: dict[str, tuple[float, bool]] = {
        "retain 0.97": (0.97, False),
        "retain 0.99": (0.99, False),
        "agree 0.98": (0.98, True),
    }
    found = {
        goal: [repeated(pool, seed, share, agree, part) for seed in range(repetitions)]
        for goal, (share, agree) in goals.items()
    }
    figures: dict[str, Any] = {
        "questions": len(pool.sources), "images": len(set(pool.sources)), "repetitions": repetitions, "part": part,
        "settings": {name: whole_figures(pool, name) for name in pool.answers}, "goals": found,
        "summary": {goal: summed(listed) for goal, listed in found.items()},
        "versions": versions(), "hardware": hardware("cpu"),
    }  # fmt: skip
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for goal, one in figures["summary"].items():
        print(goal, one)


def repeated(pool: Pool, seed: int, share: float, agree: bool, part: float) -> dict[str, Any]:
    """One choice on images drawn at random, and what it keeps on the others."""
    images = np.array(sorted(set(pool.sources)))
    drawn = set(np.random.default_rng(seed).permutation(images)[: round(part * len(images))])
    here = [n for n, source in enumerate(pool.sources) if source in drawn]
    others = [n for n, source in enumerate(pool.sources) if source not in drawn]

    def ask(names: Sequence[str], places: Sequence[int]) -> Mapping[str, Judged]:
        return {name: pool.judged(name, [here[place] for place in places], agree) for name in names}

    asked = Asked(share, 0.9, THRESHOLDS if agree else (0.0,), seed)
    choice = choose(pool.settings, [pool.sources[n] for n in here], ask, asked)
    return {"seed": seed, "asked": len(here), "judged": len(others)} | outcome(pool, choice, others, agree, share)


def outcome(pool: Pool, choice: Choice, others: Sequence[int], agree: bool, share: float) -> dict[str, Any]:
    """What a choice keeps on questions that it never saw, and what the same mean tokens for everyone would."""
    chosen = choice.chosen
    if chosen is None:
        return {"chosen": None, "kept": True}  # nothing was promised
    judged = pool.judged(chosen.name, others, agree).guarded(chosen.threshold)
    again = float((pool.margins[chosen.name][list(others)] < chosen.threshold).mean())
    tokens = pool.mean_tokens(chosen.name) + again * pool.mean_tokens(FULL)
    level = {
        measure: level_at(pool, tokens, others, agrees)
        for measure, agrees in (("agreement", True), ("retained", False))
    }
    whole = pool.judged(chosen.name, others, False)
    full = pool.answers[FULL][list(others)] == pool.right[list(others)]
    accuracy = np.where(pool.margins[chosen.name][list(others)] < chosen.threshold, full, whole.kept)
    return {
        "chosen": chosen.name, "threshold": chosen.threshold, "promised": chosen.lower, "truly": judged.share,
        "kept": judged.share >= share, "again": again, "tokens": tokens,
        "cost": float(judged.cost.sum() / judged.whole_cost.sum()),
        "retained": float(accuracy.sum() / full.sum()), "same tokens for all": level,
    }  # fmt: skip


def level_at(pool: Pool, tokens: float, others: Sequence[int], agree: bool) -> float:
    """What so many tokens for everyone keep: between the best settings of fewer and of more, which favours them."""
    names = sorted(pool.answers, key=pool.mean_tokens)
    shares = np.maximum.accumulate([pool.judged(name, others, agree).share for name in names])
    return float(np.interp(tokens, [pool.mean_tokens(name) for name in names], shares))


def whole_figures(pool: Pool, name: str) -> dict[str, float]:
    """A setting on the whole pool."""
    places = range(len(pool.sources))
    return {
        "tokens": pool.mean_tokens(name),
        "retained": pool.judged(name, places, False).share,
        "agreement": pool.judged(name, places, True).share,
    }


def summed(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many promises were kept, and what the choices cost on average."""
    chosen = [one for one in listed if one["chosen"]]
    means = {
        name: float(np.mean([one[name] for one in chosen])) if chosen else None
        for name in ("truly", "tokens", "cost", "again", "retained")
    }
    level = {
        name: float(np.mean([one["same tokens for all"][name] for one in chosen])) if chosen else None
        for name in ("agreement", "retained")
    }
    return {"promised": len(chosen), "kept": sum(one["kept"] for one in chosen), **means, "same tokens for all": level}


if __name__ == "__main__":
    typer.run(main)
