"""A model under check: its prompts, and the calls that every line makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from .. import applying
from ..config.arguments import tokenizer_of
from ..engine.handle import Duet
from ..families import family_of, visual_token_ids
from ..host import decoder_of
from ..presets import DuetConfig
from . import prompts

if TYPE_CHECKING:
    from transformers import ProcessorMixin

NEW = 4  # tokens of every answer


class Subject:
    """A model in eval mode with its own processor and the settings to try.

    Attributes:
        singles: three prompts, the third without a picture.
        batch: the three, padded on the left.
        config: the settings.
    """

    def __init__(self, model: Any, processor: ProcessorMixin, config: DuetConfig):
        self.model, self.processor, self.config = model, processor, config
        tokenizer = tokenizer_of(processor)
        padding = getattr(tokenizer, "pad_token_id", None) or 0
        special = set(tokenizer.all_special_ids) | set(visual_token_ids(model.config).values())
        for ids in (model.generation_config.eos_token_id, getattr(tokenizer, "eos_token_id", None)):
            special |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
        self.suppressed = sorted(special)
        model.generation_config = GenerationConfig(pad_token_id=padding)
        self.singles = prompts.rows(model, processor)
        self.batch = prompts.together(self.singles, padding, family_of(model.config).pixels_along)

    def apply(self, config: DuetConfig | None = None) -> Duet:
        """Compress the model, with the settings to try if no others are given."""
        return applying.apply(self.model, config or self.config, tokenizer=self.processor)

    # ---- calls; they are the same for stock and for a compressed model ----

    @torch.no_grad()
    def logits(self, row: dict[str, Tensor]) -> Tensor:
        """(n, V) logits of one forward without a cache, at every token that is no padding."""
        found: Tensor = self.model(**row, use_cache=False).logits
        return found[row["attention_mask"].bool()]

    def greedy(self, row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, NEW) tokens and (B, NEW, V) logits of greedy decoding; special tokens are never chosen."""
        out = self._generate(row, suppress_tokens=self.suppressed)
        return out.sequences[:, row["input_ids"].shape[1] :], torch.stack(out.logits, 1)

    def forced(self, row: dict[str, Tensor], tokens: Tensor | None = None) -> Any:
        """`generate`'s output where the answer is `tokens` (n,), by default the agreed ones."""
        tokens = self.answer if tokens is None else tokens
        answer, start = tokens.tolist(), row["input_ids"].shape[1]
        # Janus hands no logits_processor on
        return self._generate(row, len(answer), prefix_allowed_tokens_fn=lambda _, ids: [answer[len(ids) - start]])

    def steps(self, row: dict[str, Tensor], tokens: Tensor | None = None) -> Tensor:
        """(B, n, V) log-probabilities of every step of a forced answer."""
        return chances(torch.stack(self.forced(row, tokens).logits, 1))

    def _generate(self, row: dict[str, Tensor], new: int = NEW, **options: Any) -> Any:
        return self.model.generate(
            **row, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
        )

    def beams(self, row: dict[str, Tensor]) -> Any:
        """`generate`'s output with three beams, of which two are given back."""
        return self._generate(
            row, num_beams=3, num_return_sequences=2, output_scores=True, suppress_tokens=self.suppressed
        )

    # ---- what stock says, once ----

    @cached_property
    def stock(self) -> dict[str, Any]:
        """Stock's numbers for the lines that compare bit for bit; call it before anything is applied."""
        tokens, steps = self.greedy(self.batch)
        return {
            "batch": self.logits(self.batch),
            "text": self.logits(self.singles[-1]),
            "tokens": tokens,
            "steps": steps,
            "text steps": self.greedy(self.singles[-1])[1],
            "again": largest([(self.logits(self.batch), self.logits(self.batch)), (steps, self.greedy(self.batch)[1])]),
        }

    @cached_property
    def answer(self) -> Tensor:
        """(NEW,) the tokens that every compared answer consists of: stock's greedy ones to the first prompt."""
        tokens: Tensor = self.stock["tokens"][0]
        return tokens

    @cached_property
    def scale(self) -> float:
        """The largest log-probability in absolute value, the size at which rounding is measured."""
        return float(chances(self.stock["steps"]).abs().max())

    @cached_property
    def epsilon(self) -> float:
        """The relative rounding of what the model computes in."""
        dtype, device = self.model.dtype, self.model.device.type
        if dtype == torch.float32 and device == "cuda":  # tensor cores may compute in less
            return {"high": 2.0**-10, "medium": 2.0**-8}.get(torch.get_float32_matmul_precision(), 2.0**-23)
        return float(torch.finfo(dtype).eps)

    @property
    def limit(self) -> float:
        """Half of the dtype's digits at the largest log-probability: what is more is no rounding."""
        return math.sqrt(self.epsilon) * self.scale

    def allowed(self, stock: float) -> float:
        """What two ways of computing the same may differ by, where stock's differ by `stock`."""
        return min(4 * stock, self.limit) + 2 * self.epsilon * self.scale

    @property
    def decoder(self) -> Any:
        return decoder_of(self.model)


def chances(logits: Tensor) -> Tensor:
    """Log-probabilities in float32."""
    return logits.float().log_softmax(-1)


def largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The largest difference between the two of any pair; infinite where shapes differ or one is not finite alone."""
    found = 0.0
    for a, b in pairs:
        if a.shape != b.shape:
            return math.inf
        same = (a == b) | (a.isnan() & b.isnan())
        difference = torch.where(same, 0, (a.float() - b.float()).abs())
        worst = float(difference.max()) if difference.numel() else 0.0
        found = math.inf if math.isnan(worst) else max(found, worst)
    return found
