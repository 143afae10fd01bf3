"""The one place that touches a model: hooks on it, on its language model and on every decoder layer.

The stock model works on the full sequence throughout; a decoder layer works on the part of it still kept. A hook
before each layer hands it that part: hidden states, rotary embeddings and mask are gathered, nothing is recomputed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from .. import host
from ..errors import DuetError
from ..families import audience, recency
from ..host.refs import Ref, wrap
from ..host.types import Core, DecoderLayer
from . import (
    calls,
    counting,
    deepstack,
    distributed,
    dropping,
    entrance,
    guard,
    label_logits,
    lending,
    merge_sizes,
    padding,
    prompt,
)  # fmt: skip
from .cache import check_equal_lengths, check_prunable, forget_announced, is_pruned
from .forward_pass import ARGUMENT, Decode, Entry, ForwardPass, Prefill, PrefillRecord, TextOnly
from .noted import Noted
from .passes import Passes
from .plan import Plan
from .segments import restriction_for, stored_by


class Engine:
    """What hangs on a model: hooks that run under a plan. It does not keep the model alive; `Duet` is its handle.

    Attributes:
        plan: what the applied config means on the model.
        full_logits: whether training gives back logits of every place.
        passes: the forward passes that are under way.
        last: what the last prompt with an image kept, once its pass ended; for the trace, nothing else reads it.
    """

    def __init__(self, model: Any, plan: Plan, full_logits: bool) -> None:
        self._model, self.plan, self.full_logits, self.passes = Ref(model), plan, full_logits, Passes()
        self.last: PrefillRecord | None = None
        self.watch: dropping.Watch | None = None
        self.warned, self.noted, self._handles = False, Noted(), list[Any]()
        self._hook()

    def _hook(self) -> None:
        model = self._model()
        core, language_model, pre = model.base_model, host.decoder_of(model), {"with_kwargs": True}
        answers = model is not core or model.get_output_embeddings() is not None  # some have no core model of their own
        self._handles = [model.register_forward_pre_hook(self.before_model, **pre)] if answers else []
        self._handles += [
            core.register_forward_pre_hook(self.before_core, **pre),
            core.register_forward_hook(self.after_core, always_call=True, **pre),
            language_model.register_forward_hook(self.after_language_model, **pre),
            *(layer.register_forward_pre_hook(self._hook_of(layer), **pre) for layer in language_model.layers),
        ]
        self._handles += [*deepstack.hooks_on(language_model), *counting.hooks_on(language_model)]
        if self.plan.lending_layers:
            self._handles.append(language_model.register_forward_pre_hook(lending.before_language_model, **pre))
        if answers:
            self._handles.append(model.register_forward_hook(self.after_model, always_call=True, **pre))
        if callable(getattr(model, "generate", None)):
            self._handles.append(wrap(model, "generate", self.around_generate))
        self._handles += [*self.plan.family.hook_encoders(core, self.plan.config), *guard.hooks_on(self, model)]

    def _hook_of(self, layer: Any) -> Callable[..., Any]:
        if host.borrows(layer):
            return lending.before_borrowing_layer
        lends = host.layer_number(layer) in self.plan.lending_layers
        attending = self.before_lending_layer if lends else self.before_layer
        return attending if host.attends(layer) else self.before_linear_layer

    def _unhook(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    @property
    def applied(self) -> bool:
        """Whether it hangs on the model now."""
        return bool(self._handles)

    def use(self, plan: Plan) -> None:
        """Go on under another plan once no pass is under way."""
        with self.passes.between():
            self._unhook()
            self.plan = plan
            self._hook()
            self.write()

    def remove(self) -> None:
        """Take every hook off once no pass is under way, and give the model's config back what it had."""
        with self.passes.between():
            self._unhook()
            self.noted.take_back(self._model().config)

    def write(self) -> None:
        """Put the settings into the model's config, where `save_pretrained` finds them; none that cannot be saved."""
        self.noted.write(self._model().config, self.plan.config)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}  # a copied or saved model takes no prompt along

    # ---- hooks, in the order a forward pass meets them ----

    def around_generate(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        host.check_chunks(self._model(), args, kwargs, self.plan.compresses and prompt.has_pixels(self.plan, kwargs))
        guarded = guard.is_on(self.plan, self._model(), kwargs)  # images come to no draft nor the stock model
        alone = kwargs.get("assistant_model") is None and not guarded
        older, heard = prompt.older_of_prompt(self.plan, args, kwargs), audience.for_engine(alone, handed_on=True)
        with calls.generating(self, args, kwargs, guarded), heard, recency.within_prompt(older):
            return generate(*args, **kwargs)

    def before_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        call = calls.begin()  # before anything can fail, because `after_model` ends it
        kwargs = host.named_arguments(model, args, kwargs)
        labels, ids = kwargs.get("labels"), kwargs.get("input_ids")
        call.hear(kwargs, labels)
        if labels is not None and label_logits.is_possible(model, kwargs):
            kwargs |= label_logits.restrict(labels)
            call.logits = kwargs["logits_to_keep"]
        elif call.labels is None and ids is not None and ids.shape[1] > 1 and self.plan.config.ranks:
            answer = calls.scored_answer(kwargs.get("logits_to_keep"), ids.shape[1])
            call.answer = answer or 0
            unsaid = answer is None and calls.generation(self) is None
            if unsaid and not self.warned and prompt.brings_images(self.plan, kwargs):
                self.warned = label_logits.warn_without_labels(model)
        return (), kwargs

    def after_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        call = calls.end()
        if output is None or call is None or call.logits is None or not self.full_logits:
            return None
        return label_logits.fill(output, call.logits)

    def before_core(self, core: Core, args: Any, kwargs: dict[str, Any]) -> Any:
        self.passes.enter()
        kwargs = host.named_arguments(core, args, kwargs)
        if host.is_replica(core):
            raise DuetError("DataParallel copies of a model cannot be compressed: start one process for each device.")
        state, kwargs = self.read(core, kwargs, calls.at_core(kwargs))
        return (), kwargs if state is None else kwargs | {ARGUMENT: state}

    def after_core(self, core: Core, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.passes.leave()
        if output is None:
            forget_announced(host.cache_of(kwargs))

    def before_layer(self, layer: DecoderLayer, args: Any, kwargs: dict[str, Any]) -> Any:
        state: ForwardPass | None = kwargs.pop(ARGUMENT, None)
        match state:
            case Decode():  # first: a decoding step has no time to ask the others
                hidden, stored = args[0], stored_by(layer, kwargs)
                restriction_for(layer, hidden, kwargs, state, stored).give(kwargs, stored)
            case Prefill():
                return entrance.enter(layer, args, kwargs, state, self.watch), kwargs
            case TextOnly():
                hidden = dropping.run_to_no_effect(layer, args[0], kwargs, state)
            case None:
                return None
        return (hidden, *args[1:]), kwargs

    def before_lending_layer(self, layer: DecoderLayer, args: Any, kwargs: dict[str, Any]) -> Any:
        state, given = kwargs.get(ARGUMENT), self.before_layer(layer, args, kwargs)
        lending.note(layer, kwargs, state)
        return given

    def before_linear_layer(self, layer: DecoderLayer, args: Any, kwargs: dict[str, Any]) -> Any:
        match kwargs.pop(ARGUMENT, None):
            case Prefill() as prompt:
                args = entrance.enter_linear(layer, args[0], kwargs, prompt), *args[1:]
            case TextOnly() as text:
                args = dropping.run_to_no_effect(layer, args[0], kwargs, text), *args[1:]
        return args, kwargs  # what comes behind a prompt goes into the state as it is

    def after_language_model(self, language_model: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        state = kwargs.get(ARGUMENT)
        if not isinstance(state, Prefill):
            return None
        if state.present.kept is not None:
            hidden = output.last_hidden_state
            state.move(hidden.device)
            output.last_hidden_state = state.present.filled(hidden)
        self.last = state.record()
        return output

    # ---- steps ----

    def read(self, core: Core, kwargs: dict[str, Any], call: calls.ModelCall) -> Entry:
        """Tell what a call of the core model is, None for a stock one, and give its arguments with images encoded."""
        plan, ids, cache = self.plan, kwargs.get("input_ids"), host.cache_of(kwargs)
        otherwise = Decode(plan) if is_pruned(cache) else None
        if otherwise is not None:
            check_equal_lengths(cache, plan.storing_layers)
        images = prompt.brings_images(plan, kwargs)
        if ids is None and images and plan.compresses:
            raise DuetError(
                "inputs_embeds came with an image but without input_ids, so its visual tokens cannot be found: "
                "pass input_ids, or remove() the compression for this call."
            )
        if ids is None or (ids.shape[1] == 1 and not images):  # most often a decoding step
            return otherwise, kwargs
        past = 0 if cache is None else cache.get_seq_length()
        begins = ids.shape[1] > 1 and not past
        if images or begins:
            self.last = None
        if begins and not images and distributed.is_needed(core):
            return TextOnly.of(plan, ids, distributed.encode_blank(core)), kwargs
        if ids.shape[1] == 1 or not images or not plan.compresses or calls.is_whole(self):
            return otherwise, kwargs
        audience.for_everyone()  # what `generate` encodes before its first forward is encoded now
        host.check_attention(host.decoder_of(core), plan.renumbers)
        if plan.config.proportional:
            merge_sizes.check_adds_mask(host.decoder_of(core))
        if cache is not None:
            check_prunable(cache)
            check_equal_lengths(cache, plan.storing_layers)
        padded = padding.read_padding(ids, kwargs, past, call.together)
        generation = calls.generation(self)
        encoded = prompt.encode(plan, core, kwargs, 1 if generation is None else generation.repeats(len(ids)))
        labels = calls.labels_of(call, generation, ids, past)
        entry = prompt.read_prompt(plan, ids, encoded, padded, labels)
        if entry and past and plan.linear_layers:
            entrance.check_later_turn(entry[0])
        return entry or (otherwise, kwargs)

    @contextlib.contextmanager
    def watching(self, watch: dropping.Watch) -> Iterator[None]:
        """Inside, rankings are watched, for measuring.

        Args:
            watch: called with the decoder layer's number and the ranking, which it runs; returns what that returns.
        """
        self.watch = watch
        try:
            yield
        finally:
            self.watch = None
