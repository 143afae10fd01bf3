"""The one place that touches a model: hooks on it, on its language model and on every decoder layer.

The stock model works on the full sequence throughout; a decoder layer works on the part of it still kept. A hook
before each layer hands it that part: hidden states, rotary embeddings and mask are gathered, nothing is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import dropping, host, lockstep, padding, prompt, proportional, segments, supervised, telling
from .cache import check_prunable, check_whole, forget_announced, is_pruned
from .config import DuetConfig
from .errors import DuetError
from .families import Family, encoding
from .forward_pass import ForwardPass
from .passes import Passes
from .plan import Plan
from .refs import Ref, wrap
from .tokens import fill_back, spread
from .trace import Trace


class Duet:
    """A config applied to a model. `remove()` takes it off again; also a context manager.

    It does not keep the model alive. Settings change between forward passes: `use()` and `remove()` wait for those of
    other threads. A cache that holds a compressed prompt goes on under whatever settings are applied.

    Attributes:
        plan: what the config means on the model.
        full_logits: whether training gives back logits of every place.
    """

    def __init__(
        self, model: Any, config: DuetConfig, tokenizer: Any, full_logits: bool = True, write: bool = True
    ) -> None:
        _check_free(model)
        self.plan = Plan.of(model, config, tokenizer)
        self._model, self.full_logits, self.passes = Ref(model), full_logits, Passes()
        self.last: ForwardPass | None = None  # for the trace; nothing else reads it
        self._saved: Any = None  # what model.config.duet was before it was written
        self._wrote = self._warned = False
        self._handles: list[Any] = []
        self._hook()
        if write:
            self._write()

    def _hook(self) -> None:
        model = self.model
        core, language_model, pre = model.base_model, host.decoder_of(model), {"with_kwargs": True}
        self._handles = [
            core.register_forward_pre_hook(self.before_core, **pre),
            core.register_forward_hook(self.after_core, always_call=True, **pre),
            language_model.register_forward_hook(self.after_language_model, **pre),
            *(layer.register_forward_pre_hook(self.before_layer, **pre) for layer in language_model.layers),
        ]
        if host.takes(language_model, "deepstack_visual_embeds"):
            self._handles.append(language_model.register_forward_pre_hook(self.before_language_model, **pre))
        if model is not core:
            self._handles.append(model.register_forward_pre_hook(self.before_model, **pre))
            self._handles.append(model.register_forward_hook(self.after_model, always_call=True, **pre))
        if callable(getattr(model, "generate", None)):
            self._handles.append(wrap(model, "generate", self.around_generate))
        if self.config.merges:
            self._handles += self.family.hook_encoder(core, self.config)

    def _unhook(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _write(self) -> None:
        config = self.model.config
        if not self._wrote:
            self._saved = getattr(config, "duet", None)
        config.duet, self._wrote = self.config.to_dict(), True

    @property
    def model(self) -> Any:
        """The model, while it lives."""
        return self._model()

    @property
    def config(self) -> DuetConfig:
        """The applied settings."""
        return self.plan.config

    @property
    def tokenizer(self) -> Any:
        return self.plan.tokenizer

    @property
    def family(self) -> Family:
        return self.plan.family

    @property
    def layers(self) -> int:
        """Decoder layers of the model."""
        return self.plan.layers

    @property
    def compresses(self) -> bool:
        """Whether anything is merged or dropped."""
        return self.plan.compresses

    @property
    def rotary(self) -> Any:
        """The language model's rotary embedding where positions are renumbered, else None."""
        return self.plan.rotary if self.plan.renumbers else None

    @property
    def applied(self) -> bool:
        """Whether the model is compressed by this handle now."""
        return bool(self._handles)

    def use(self, config: DuetConfig) -> None:
        """Go on with other settings from the next forward pass on; `model.config.duet` follows.

        Raises:
            DuetError: settings that do not fit the model, or a handle that was removed; everything stays as it was.
        """
        if not self.applied:
            raise DuetError("this handle was removed, so there is nothing to change: call duet_vlm.apply again.")
        plan = Plan.of(self.model, config, self.tokenizer)
        with self.passes.between():
            self._unhook()
            self.plan = plan
            self._hook()
            self._write()

    def remove(self) -> None:
        """Take the compression off; the model is stock again. Harmless when called twice."""
        if not self.applied:
            return
        with self.passes.between():
            self._unhook()
            if self._wrote:
                config = self.model.config
                if self._saved is not None:
                    config.duet = self._saved
                elif hasattr(config, "duet"):
                    del config.duet
            self._wrote = False

    def __enter__(self) -> Duet:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}  # a copied or saved model takes no prompt along

    def __repr__(self) -> str:
        state = "applied" if self.applied else "removed"
        return f"<Duet: {state}, {self.config!r}>"

    @property
    def trace(self) -> Trace | None:
        """What the last prompt's images kept, as plain data; None where it had none, or its pass did not end."""
        last = self.last
        return None if last is None else Trace.of(last, self.layers)

    # ---- hooks, in the order a forward pass meets them ----

    def around_generate(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # images are encoded first, for this model alone, unless a draft model gets them too
        alone = kwargs.get("assistant_model") is None
        with telling.generating(self), encoding.for_engine(alone):
            return generate(*args, **kwargs)

    def before_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        told = telling.begin()
        kwargs = dict(host.named(model, args, kwargs))
        labels, ids = kwargs.get("labels"), kwargs.get("input_ids")
        told.labels = kwargs.pop("duet_labels", None) if labels is None else labels
        kwargs.pop("duet_labels", None)
        if labels is not None and supervised.is_possible(model, kwargs):
            kwargs |= supervised.restrict(labels)
            told.logits = kwargs["logits_to_keep"]
        elif told.labels is None and ids is not None and self.config.ranks:
            answer = telling.answer_asked_for(kwargs.get("logits_to_keep"), ids.shape[1])
            told.answer = answer or 0
            unsaid = answer is None and ids.shape[1] > 1 and telling.generation(self) is None
            if unsaid and not self._warned and (prompt.has_pixels(kwargs) or prompt.has_features(kwargs)):
                self._warned = supervised.warn_without_labels(model)
        return (), kwargs

    def after_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        told = telling.end()
        if output is None or told is None or told.logits is None or not self.full_logits:
            return None
        if isinstance(output, tuple):
            loss, logits, *others = output
            return (loss, supervised.fill_back(logits, told.logits), *others)
        output.logits = supervised.fill_back(output.logits, told.logits)
        return output

    def before_core(self, core: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        self.passes.enter()
        plan, told = self.plan, telling.current() or telling.Told()
        kwargs = dict(host.named(core, args, kwargs))
        if host.is_replica(core):
            raise DuetError("DataParallel copies of a model cannot be compressed: start one process for each device.")
        labels = kwargs.pop("duet_labels", None) if told.labels is None else told.labels
        ids, cache = kwargs.get("input_ids"), host.cache_of(kwargs)
        past = cache.get_seq_length() if cache is not None else 0
        follows: dict[str, Any] = {}
        if is_pruned(cache):
            check_whole(cache, plan.layers)
            follows = {"duet": ForwardPass(plan)}
        seen = prompt.has_pixels(kwargs) or prompt.has_features(kwargs)
        if ids is None:
            if seen and plan.compresses:
                raise DuetError(
                    "inputs_embeds came with an image but without input_ids, so its visual tokens cannot be found: "
                    "pass input_ids, or remove() the compression for this call."
                )
            return (), kwargs | follows
        begins = ids.shape[1] > 1 and not past
        if seen or begins:
            self.last = None
        if begins and not seen and lockstep.is_needed(core):
            return (), kwargs | {"duet": self.text_alone(plan, core, ids)}
        if ids.shape[1] == 1 or not seen or not plan.compresses:
            return (), kwargs | follows
        encoding.for_everyone()  # what `generate` encodes before its first forward is encoded now
        host.check_attention(host.decoder_of(core))
        if plan.config.proportional:
            proportional.check_attention(host.decoder_of(core))
        padded = padding.read(ids, kwargs, past)
        if cache is not None:
            check_prunable(cache)
            check_whole(cache, plan.layers)
        read = prompt.read(plan, ids, prompt.encode(core, kwargs), padded, self.labels_of(ids, past, labels, told))
        if read is None:
            return (), kwargs | follows
        state, kwargs = read
        return (), kwargs | {"duet": state}

    def after_core(self, core: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.passes.leave()
        if output is None:
            forget_announced(host.cache_of(kwargs))

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
        hidden, i = args[0], layer.self_attn.layer_idx
        if state.visual is None:
            segments.restrict_decode(layer, i, hidden, kwargs, state)
            return args, kwargs
        device = host.device_of(layer, hidden.device)
        hidden = hidden.to(device)
        state.to(device)
        if state.blank is not None:
            if i == 0:
                hidden = hidden + state.blank.to(hidden)
            if i in state.plan.ranking_layers:
                dropping.rank(layer, i, hidden, kwargs, state)
            return (hidden, *args[1:]), kwargs
        hidden = hidden[:, : state.rows.shape[1]]  # without the layer before's filler
        if 0 < i <= len(state.deepstack):
            hidden = hidden + state.present_vectors(state.deepstack[i - 1])
        hidden = dropping.compress(layer, i, hidden, kwargs, state)
        hidden = segments.restrict_prefill(layer, i, hidden, kwargs, state)
        return (hidden, *args[1:]), kwargs

    def after_language_model(self, language_model: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        state: ForwardPass | None = kwargs.get("duet")
        if state is None or state.visual is None or state.blank is not None:
            return None
        if state.now is not None:
            hidden = output.last_hidden_state
            state.to(hidden.device)
            output.last_hidden_state = fill_back(hidden, state.now, state.length)
        state.finish()
        self.last = state
        return output

    # ---- steps ----

    def labels_of(self, ids: Tensor, past: int, labels: Tensor | None, told: telling.Told) -> Tensor | None:
        """(B, S) what of ids (B, S) is an answer, as labels, drafts or generated text; None where nothing says so."""
        if labels is not None:
            return labels
        answer, generation = told.answer, telling.generation(self)
        if generation is not None and not past:
            if generation.prompt is None:
                generation.prompt = ids.shape[1] - answer
            answer = ids.shape[1] - generation.prompt
        return telling.marked(ids, answer) if answer > 0 else None

    def text_alone(self, plan: Plan, core: Any, ids: Tensor) -> ForwardPass:
        """Drops nothing, and runs every module that a prompt with an image runs."""
        nothing = torch.zeros_like(ids)
        return ForwardPass(
            plan, visual=nothing.bool(), valid=nothing.bool(), queries=nothing[:, :1] - 1, removed=nothing[:, :1],
            blank=lockstep.encode_blank(core),
        )  # fmt: skip


def handle_of(model: Any) -> Duet | None:
    """The handle of the compression that is on a model or on any part of it; None where there is none."""
    for module in model.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, Duet):
                return owner
    return None


def _check_free(model: Any) -> None:
    if handle_of(model) is not None:
        raise DuetError(
            "this model, or a part that it shares with another one, is compressed already: call remove() on the first "
            "handle, which duet_vlm.handle_of(model) finds, before apply."
        )
