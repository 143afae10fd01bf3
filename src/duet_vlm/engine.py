"""The one place that touches a model: hooks on it, on its language model and on every decoder layer.

The stock model works on the full sequence throughout; a decoder layer works on the part of it still kept. A hook
before each layer hands it that part: hidden states, rotary embeddings and mask are gathered, nothing is recomputed.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from . import attention, lockstep, prompt, proportional, ranking, segments, supervised
from .budget import SLACK
from .cache import check_prunable, is_pruned, make_prunable
from .config import Drop, DuetConfig
from .errors import DuetError
from .families import Family, decoder_of, family_of
from .forward_pass import ForwardPass
from .tokens import fill_back, spread, take
from .trace import Trace


class Duet:
    """A config applied to a model. `remove()` takes it off again; also a context manager.

    Attributes:
        config: the applied `DuetConfig`.
    """

    def __init__(self, model: Any, config: DuetConfig, tokenizer: Any, full_logits: bool = True):
        self.model, self.tokenizer, self.full_logits = model, tokenizer, full_logits
        self.model_config = model.config
        self.last: ForwardPass | None = None  # for the trace; nothing else reads it
        self.wrote_config = False  # into model.config.duet
        self._handles: list[RemovableHandle] = []
        self._hook(config)

    def _hook(self, config: DuetConfig) -> None:
        self.config, model = config, self.model
        core, language_model = model.base_model, decoder_of(model)
        self.layers = len(language_model.layers)
        positions = self.family.positions if config.positions == "auto" else config.positions
        self.rotary: Any = language_model.rotary_emb if positions == "renumber" else None
        self.drops: dict[int, Drop] = {d.layer: d for d in config.drops if d.keep < 1}
        self.ranking_layers = {d.ranking_layer for d in self.drops.values() if d.keep > 0}
        self.compresses = config.merges or bool(self.drops)
        layers = language_model.layers if self.compresses else language_model.layers[:1]  # where a blank image comes in
        pre = {"with_kwargs": True}
        self._handles = [
            core.register_forward_pre_hook(self.before_core, **pre),
            language_model.register_forward_hook(self.after_language_model, **pre),
            *(layer.register_forward_pre_hook(self.before_layer, **pre) for layer in layers),
        ]
        if "deepstack_visual_embeds" in inspect.signature(language_model.forward).parameters:
            self._handles.append(language_model.register_forward_pre_hook(self.before_language_model, **pre))
        if model is not core:
            self._handles.append(model.register_forward_pre_hook(self.before_model, **pre))
            self._handles.append(model.register_forward_hook(self.after_model, **pre))
        if config.merges:
            self._handles += self.family.hook_encoder(core, config)

    @property
    def family(self) -> Family:
        return family_of(self.model_config)

    def use(self, config: DuetConfig) -> None:
        """Go on with other settings from the next forward pass on; `model.config.duet` follows.

        Raises:
            ValueError: settings that do not fit the model; everything stays as it was.
        """
        from .applying import check

        check(self.model, config, self.tokenizer)
        self.remove()
        self._hook(config)
        self.model_config.duet, self.wrote_config = config.to_dict(), True

    def remove(self) -> None:
        """Take the compression off; the model is stock again. Harmless when called twice."""
        while self._handles:
            self._handles.pop().remove()
        if self.wrote_config and hasattr(self.model_config, "duet"):
            del self.model_config.duet
        self.wrote_config = False

    def __enter__(self) -> Duet:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    @property
    def trace(self) -> Trace | None:
        """What the last prefill kept, as plain data; None before the first one with an image."""
        return None if self.last is None else Trace.of(self.last, self.layers)

    # ---- hooks, in the order a forward pass meets them ----

    def before_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        # the core never sees labels, and answers are no queries
        labels = kwargs.get("labels")
        if labels is None:
            if self.config.ranks and kwargs.get("duet_labels") is None:
                supervised.warn_without_labels(model)
            # assisted decoding puts a draft behind the prompt and asks for its logits too: it is no question
            asked = kwargs.get("logits_to_keep")
            if not isinstance(asked, int) or asked < 2 or kwargs.get("past_key_values") is None:
                return None
            return args, kwargs | {"duet_drafted": asked - 1}
        kwargs = kwargs | {"duet_labels": labels}
        if supervised.is_possible(model, kwargs):
            kwargs |= supervised.restrict(labels)
            kwargs["duet_supervised"] = kwargs["logits_to_keep"]
        return args, kwargs

    def after_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        keep = kwargs.get("duet_supervised")
        if keep is None or not self.full_logits:
            return None
        if isinstance(output, tuple):
            loss, logits, *others = output
            return (loss, supervised.fill_back(logits, keep), *others)
        output.logits = supervised.fill_back(output.logits, keep)
        return output

    def before_core(self, core: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        labels = kwargs.pop("duet_labels", None)
        kwargs.pop("duet_supervised", None)
        if self.config.proportional:
            proportional.check_attention(decoder_of(core))
        drafted = kwargs.pop("duet_drafted", 0)
        ids, cache = kwargs.get("input_ids", args[0] if args else None), kwargs.get("past_key_values")
        if ids is None:
            if prompt.has_pixels(kwargs) or kwargs.get("mm_encoder_outputs") is not None:
                raise DuetError(
                    "inputs_embeds came with an image but without input_ids, so its visual tokens cannot be found: "
                    "pass input_ids, or remove() the compression for this call."
                )
            return args, kwargs
        follows = ForwardPass() if is_pruned(cache) else None
        seen = prompt.has_pixels(kwargs) or kwargs.get("mm_encoder_outputs")
        begins = ids.shape[1] > 1 and (cache is None or not cache.get_seq_length())
        if begins and not seen and lockstep.is_needed(core):
            return args, kwargs | {"duet": self.text_alone(core, ids)}
        if ids.shape[1] == 1 or not seen or not self.compresses:
            return args, kwargs if follows is None else kwargs | {"duet": follows}
        if cache is not None:
            check_prunable(cache)
        kwargs = prompt.encode(self.family, core, kwargs, self.config)
        labels = prompt.drafted_labels(ids, drafted) if drafted else labels
        state = prompt.read(self, ids, kwargs, labels)
        if state is None:
            return args, kwargs if follows is None else kwargs | {"duet": follows}
        if cache is not None:
            make_prunable(cache, self.layers)
        self.last = state
        return args, kwargs | {"duet": state}

    def before_language_model(self, language_model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        # deepstack: the model adds these between its first layers by a mask of the full sequence; here the layers do
        state: ForwardPass | None = kwargs.get("duet")
        embeds = kwargs.get("deepstack_visual_embeds")
        if state is None or state.visual is None or embeds is None:
            return None
        mask = kwargs["visual_pos_masks"].to(state.visual.device)
        state.deepstack = [spread(x.to(kwargs["inputs_embeds"]), mask) for x in embeds]
        return args, kwargs | {"deepstack_visual_embeds": None, "visual_pos_masks": None}

    def before_layer(self, layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        state: ForwardPass | None = kwargs.pop("duet", None)
        if state is None:
            return None
        hidden, i, cache = args[0], layer.self_attn.layer_idx, kwargs.get("past_key_values")
        if state.visual is None:
            segments.restrict_decode(layer, i, hidden, kwargs, state, self.rotary)
            return args, kwargs
        if state.blank is not None:
            if i == 0:
                hidden = hidden + state.blank.to(hidden)
            if i in self.ranking_layers:
                self.rank(layer, hidden, kwargs, state)
            return (hidden, *args[1:]), kwargs
        if cache is not None and not is_pruned(cache):  # a new one that the language model made
            make_prunable(cache, self.layers)
        hidden = hidden[:, : state.rows.shape[1]]  # without the layer before's filler
        if 0 < i <= len(state.deepstack):
            hidden = hidden + state.present_vectors(state.deepstack[i - 1])
        hidden = self.compress(layer, i, hidden, kwargs, state)
        hidden = segments.restrict_prefill(layer, i, hidden, kwargs, state, self.rotary)
        return (hidden, *args[1:]), kwargs

    def after_language_model(self, language_model: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        state: ForwardPass | None = kwargs.get("duet")
        if state is None or state.now is None:
            return None
        output.last_hidden_state = fill_back(output.last_hidden_state, state.now, state.length)
        state.memo.clear()
        return output

    # ---- steps ----

    def text_alone(self, core: Any, ids: Tensor) -> ForwardPass:
        """Drops nothing, and runs every module that a prompt with an image runs."""
        nothing = torch.zeros_like(ids)
        return ForwardPass(
            visual=nothing.bool(), valid=nothing.bool(), queries=nothing[:, :1] - 1, removed=nothing[:, :1],
            blank=lockstep.encode_blank(core),
        )  # fmt: skip

    def compress(self, layer: Any, i: int, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> Tensor:
        """Rank and drop what this layer's entrance ranks and drops."""
        if i == 0 and self.config.merges:
            # stage 1 wrote zeros where it removed a token
            gone = state.present(state.visual) & (hidden == 0).all(-1)
            spans = state.present(state.spans).masked_fill(gone, 0)
            assert state.limits is not None
            ones = torch.ones_like(spans, dtype=state.limits.dtype)
            state.limits = torch.zeros_like(state.limits).index_add(0, spans.flatten(), ones.flatten())
            hidden = take(hidden, state.drop(0, state.present(state.valid) & ~gone))
        if i in self.ranking_layers:
            state.scores[i] = self.rank(layer, hidden, kwargs, state)
        if i in self.drops:
            drop, visual = self.drops[i], state.present(state.visual)
            keep = state.present(state.valid) & ~visual
            if drop.keep > 0:
                assert state.limits is not None
                limits = (state.limits * drop.keep + SLACK).floor().long()
                state.scores[i], state.ranked[i] = state.scores[drop.ranking_layer], state.now
                keep |= ranking.best(state.scores[i], state.present(state.spans), limits)
            if state.unanswered is not None:
                keep |= state.present(state.valid) & state.unanswered
            hidden = take(hidden, state.drop(i, keep))
        return hidden

    @torch.no_grad()
    def rank(self, layer: Any, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> Tensor:
        """(B, n) METHOD's score of every present token with the weights of this layer."""
        rows, asked, i = state.rows, state.present_queries(), layer.self_attn.layer_idx
        rotary = segments.rotate(hidden, kwargs, state, self.rotary, segments.removed_earlier(i, kwargs))
        normed = layer.input_layernorm(hidden)
        query, scaling = attention.queries(
            layer.self_attn,
            take(normed, asked),
            position_embeddings=tuple(take(r, asked) for r in rotary),
        )
        key = attention.keys(layer.self_attn, normed, position_embeddings=rotary)
        places = take(rows, asked)
        attend = (rows[:, None] <= places[..., None]) & state.present(state.valid)[:, None]
        visual, average = state.present(state.visual), None
        if self.config.debias:
            same = ranking.average_token(normed, visual)
            average = attention.keys(layer.self_attn, same, position_embeddings=rotary)
        seen = ranking.Entrance(
            query, key, attend, asked >= 0, scaling, hidden, take(hidden, asked), visual, average,
            None if state.log_sizes is None else state.present(state.log_sizes),
        )  # fmt: skip
        return ranking.RANKINGS[self.config.ranking](seen)
