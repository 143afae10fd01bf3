"""The decoder's layers with drops between them: visual tokens are ranked and gathered, the layers are vLLM's own.

Only steps in which a prompt comes in run here. Those that drop nothing, as every step of an answer, are run by vLLM's
own forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.forward_context import get_forward_context

from ..config.settings import Settings
from ..stage2 import ranking
from ..stage2.queries import query_places
from ..tensors.streamed import Places, Softmax
from .metadata import Stages, Step
from .positions import StagePositions
from .state import Prompt
from .twins import Twin, twin


class Decoder:
    """Stage 2 on one decoder of vLLM.

    Attributes:
        stages: what the builders of attention metadata share with it.
    """

    def __init__(
        self,
        config: Settings,
        model: Any,
        *,
        runs: Sequence[str] = (),
        renumbers: bool,
        longest: int,
        axes: int = 1,
        tokenizer: Any = None,
    ):
        """Give the attention layers of a decoder the backends of their stages.

        Args:
            config: the settings.
            model: the decoder, with `layers`, `norm` and `embed_input_ids`, as `LlamaModel` and `Qwen2Model` have them.
            runs: modalities whose spans in stage 2 are unbroken runs of visual tokens, as in `Family.runs`.
            renumbers: whether positions close the gaps that a drop leaves; otherwise they stay as they were.
            longest: the most tokens of a step.
            axes: of a position.
            tokenizer: finds the words of a question; None where none are needed.
        """
        self.config = config
        self.tokenizer = tokenizer
        self.renumbers = renumbers
        self._model = (model,)  # in a tuple: a module would become a part of the model that holds this
        self.drops = {drop.layer: drop for drop in config.drops if drop.keep < 1}
        self.ranked_by = {drop.ranking_layer: drop for drop in self.drops.values() if drop.keep > 0}
        self.stages = Stages(list(self.drops.values()), runs, [layer.self_attn.attn for layer in model.layers])
        self.twins = {number: Twin(model.layers[number]) for number in self.ranked_by}
        self.layers = list(model.layers)
        self._compiled = False  # whether vLLM's own forward has run with more than one token
        self.positions: StagePositions | None = None
        if renumbers:
            self.layers = [twin(layer, self_attn=twin(layer.self_attn)) for layer in model.layers]
            self.positions = StagePositions(model.layers, self.stages.of_layers, longest, axes)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        inputs_embeds: Tensor | None,
        adds: Sequence[Tensor] = (),
    ) -> Tensor | None:
        """Run the layers; None where nothing is dropped in this step, which vLLM's own forward then runs.

        Args:
            input_ids: (N,) of all requests; used where there are no embeddings.
            positions: (N,) or (axes, N).
            inputs_embeds: (N, D).
            adds: (N, D) each, what is added to the hidden states after layers 0, 1, ... (DeepStack).

        Returns:
            (N, D) hidden states behind the last norm. A token that was dropped has those of the last one before it
            that is left of its request, as in the engine.
        """
        context, step = get_forward_context(), self.stages.step
        told = isinstance(context.attn_metadata, dict) and context.attn_metadata
        if step is None or not told or not step.compressed:
            self._leave(context, positions)
            return None
        slots: dict[str, Tensor] = dict(context.slot_mapping)
        for names, here in step.slots:
            slots |= dict.fromkeys(names, here)
        context.slot_mapping = slots
        if not step.entering:
            self._leave(context, positions, step.places)
            return None
        model = self._model[0]
        hidden = model.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        tokens, padded = step.stages[0].tokens, len(hidden)
        out = _Pass(self, step, positions[..., :tokens], hidden[:tokens], adds).run(model)
        return out if padded == tokens else nn.functional.pad(out, (0, 0, 0, padded - tokens))

    def _leave(self, context: Any, positions: Tensor, places: Mapping[int, Tensor] | None = None) -> None:
        """Make a step ready for vLLM's own forward."""
        if self.positions is not None:
            self.positions.write(positions, places)
        # a graph that is made of one token is one for one token, and vLLM makes it of what comes first
        self._compiled = self._compiled or positions.shape[-1] > 1
        context.skip_compiled = not self._compiled

    def asked(self, prompt: Prompt) -> Tensor:
        """(1, q) long places of the query tokens of a prompt, on the host."""
        ids = torch.tensor([list(prompt.ids or [0] * prompt.length)])
        visual = torch.from_numpy(prompt.numbers != 0)[None]
        return query_places(self.config, self.tokenizer, ids, visual, torch.ones_like(visual), None)


class _Pass:
    """A step in which prompts lose tokens, on its way through the layers."""

    def __init__(self, decoder: Decoder, step: Step, positions: Tensor, hidden: Tensor, adds: Sequence[Tensor]):
        self.decoder, self.step = decoder, step
        self.stock_positions = self.positions = positions
        self.hidden = hidden
        self.residual: Tensor | None = None
        self.adds = adds
        self.stage = 0
        self.present: Tensor | None = None  # places among all tokens; None for every one
        self.numbers: dict[int, Tensor] = {}  # of the requests that lose tokens, by row
        self.places: dict[int, Tensor] = {}
        self.scores: dict[int, Tensor] = {}
        for row in step.entering:
            numbers = torch.from_numpy(step.prompts[row].numbers).to(hidden.device, non_blocking=True)
            answer = step.rows[row].scheduled - len(numbers)  # of a request that is computed again
            self.numbers[row] = nn.functional.pad(numbers, (0, answer))
            self.places[row] = torch.arange(step.rows[row].scheduled, device=hidden.device)
        self.asked: Mapping[int, Tensor] = {}
        if decoder.ranked_by:
            self.asked = {row: decoder.asked(step.prompts[row]).to(hidden.device) for row in step.entering}

    def run(self, model: Any) -> Tensor:
        for number, layer in enumerate(self.decoder.layers):
            ranks = self.decoder.twins.get(number)
            if ranks is not None:
                self.rank(number, ranks)
            index = self.drop() if number in self.decoder.drops else None
            if ranks is not None:
                self.hidden, self.residual = ranks.run(self.positions, self.hidden, self.residual, index)
            else:
                self.hidden, self.residual = layer(self.positions, self.hidden, self.residual)
            if number < len(self.adds):
                more = self.adds[number][: self.step.stages[0].tokens]
                self.hidden = self.hidden + (more if self.present is None else more[self.present])
        hidden: Tensor
        hidden, _ = model.norm(self.hidden, self.residual)
        return hidden if self.present is None else self.filled(hidden)

    def drop(self) -> Tensor:
        """Go on with what the next stage has: its places among the tokens present."""
        before, self.stage = self.step.stages[self.stage], self.stage + 1
        after = self.step.stages[self.stage]
        order = torch.arange(before.tokens, device=self.hidden.device)
        left: list[Tensor] = []
        done = 0
        for row in self.step.entering:
            start, end = int(before.starts[row]), int(before.starts[row + 1])
            chosen = self.left(row, int(after.starts[row + 1] - after.starts[row]))
            left += [order[done:start], chosen + start]
            done = end
        index = torch.cat([*left, order[done:]])
        self.hidden = self.hidden[index]
        self.residual = None if self.residual is None else self.residual[index]
        self.present = index if self.present is None else self.present[index]
        if self.decoder.renumbers:
            self.positions = self.step.places[self.stage].to(self.stock_positions.dtype)
        else:
            self.positions = self.stock_positions[..., self.present]
        return index

    def left(self, row: int, count: int) -> Tensor:
        """(count,) which of the tokens of a request that are present stay."""
        numbers = self.numbers[row]
        kept = self.step.prompts[row].kept[self.stage - 1]
        keep = numbers == 0
        if any(kept):
            ranked = len(self.scores[row])
            best = ranking.top_per_span(self.scores[row][None], numbers[None, :ranked], self.limits(kept))[0]
            keep[:ranked] |= best
        # so many are known beforehand: nothing is read to find how many
        chosen = (~keep).to(torch.uint8).argsort(stable=True)[:count]
        self.numbers[row], self.places[row] = numbers[chosen], self.places[row][chosen]
        return chosen

    def limits(self, kept: Sequence[int]) -> Tensor:
        return torch.tensor(kept).to(self.hidden.device, non_blocking=True)

    def rank(self, layer: int, twin: Twin) -> None:
        """Score the tokens of every prompt that loses some, with the weights of a layer."""
        normed, query, key = twin.look(self.positions, self.hidden, self.residual)
        whole = self.hidden if self.residual is None else self.hidden + self.residual
        drop = list(self.decoder.drops.values()).index(self.decoder.ranked_by[layer])
        for row in self.step.entering:
            prompt, start = self.step.prompts[row], int(self.step.stages[self.stage].starts[row])
            present = prompt.length - (prompt.removed[self.stage - 1] if self.stage else 0)  # no answer behind it
            part = slice(start, start + present)
            numbers, places = self.numbers[row][None, :present], self.places[row][None, :present]
            visual, asked = numbers > 0, self.asked[row]
            at = torch.searchsorted(places, asked).clamp(max=present - 1)
            asked = asked.masked_fill(places.gather(1, at) != asked, -1)
            average = None
            if self.decoder.config.debias:
                same = ranking.average_token(normed[None, part], visual)[0]
                average = twin.keys(self.positions[..., part], same)
            inputs = ranking.RankingInputs(
                query=query[:, :, part][:, :, at[0]],
                key=key[:, :, part],
                places=Places(asked, places),
                softmax=Softmax(twin.scale),
                hidden=whole[None, part],
                questions=whole[part][None, at[0]],
                visual=visual,
                spans=numbers,
                limits=self.limits(prompt.kept[drop]),
                average=average,
            )
            self.scores[row] = ranking.ranked(self.decoder.config.ranking_method, inputs)[0]

    def filled(self, hidden: Tensor) -> Tensor:
        """(n, D) of the tokens present -> (N, D): a dropped one has what the last one before it has."""
        stages = self.step.stages
        tokens, present = stages[0].tokens, self.present
        assert present is not None
        slots = torch.full((tokens,), -1, device=hidden.device)
        slots[present] = torch.arange(len(present), device=hidden.device)
        slots = slots.cummax(0).values
        for row in self.step.entering:  # never another request's
            first, own = int(stages[0].starts[row]), int(stages[-1].starts[row])
            end = int(stages[0].starts[row + 1])
            slots[first:end].clamp_(min=own)
        return hidden[slots.clamp(max=len(present) - 1)]
