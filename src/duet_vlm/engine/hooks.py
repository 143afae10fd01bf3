"""The one place that touches a model: hooks on it, on its language model and on every decoder layer.

The stock model works on the full sequence throughout; a decoder layer works on the part of it still kept. A hook
before each layer hands it that part: hidden states, rotary embeddings and mask are gathered, nothing is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import host
from ..errors import DuetError
from ..families import encoding
from ..host.refs import Ref, wrap
from ..tensors.tokens import fill_back, spread
from . import distributed as lockstep
from . import dropping, padding, prompt, segments, telling
from . import label_logits as supervised
from . import merge_sizes as proportional
from .cache import check_prunable, check_whole, forget_announced, is_pruned
from .forward_pass import ForwardPass
from .passes import Passes
from .plan import Plan


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
        self.last: ForwardPass | None = None
        self.saved: Any = None  # what model.config.duet was before it was written
        self.wrote = self.warned = False
        self._handles: list[Any] = []
        self._hook()

    def _hook(self) -> None:
        model = self._model()
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
        if self.plan.config.merges:
            self._handles += self.plan.family.hook_encoder(core, self.plan.config)

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
            config = self._model().config
            if self.wrote and self.saved is not None:
                config.duet = self.saved
            elif self.wrote and hasattr(config, "duet"):
                del config.duet
            self.wrote = False

    def write(self) -> None:
        """Put the settings into the model's config, where `save_pretrained` finds them; none that cannot be saved."""
        config = self._model().config
        if not self.wrote:
            self.saved = getattr(config, "duet", None)
        if self.plan.config.savable:
            config.duet = self.plan.config.to_dict()
        elif hasattr(config, "duet"):
            del config.duet
        self.wrote = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}  # a copied or saved model takes no prompt along

    # ---- hooks, in the order a forward pass meets them ----

    def around_generate(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        host.check_chunks(self._model(), args, kwargs, self.plan.compresses)
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
        elif told.labels is None and ids is not None and self.plan.config.ranks:
            answer = telling.answer_asked_for(kwargs.get("logits_to_keep"), ids.shape[1])
            told.answer = answer or 0
            unsaid = answer is None and ids.shape[1] > 1 and telling.generation(self) is None
            if unsaid and not self.warned and (prompt.has_pixels(kwargs) or prompt.has_features(kwargs)):
                self.warned = supervised.warn_without_labels(model)
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
        together = kwargs.pop("duet_together", False)
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
        padded = padding.read(ids, kwargs, past, together)
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
