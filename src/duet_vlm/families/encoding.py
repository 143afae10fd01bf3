"""One call of an encoder under stage 1: what its taps collect, and what stage 1 makes of it.

What stage 1 decides stands beside the features (`Outcome`), never in them: whoever calls `get_image_features` gets what
the stock model gives, with an `Outcome` on the output that only the engine reads. What is collected on the way belongs
to one call. It lives in a context variable from the call's entrance to its exit, so threads, copies of a model and
models that share a tower see nothing of each other, and nothing outlives a call, also where it fails.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config.settings import Settings
from ..errors import DuetError
from ..host.refs import Ref, wrap
from ..stage1 import Merge
from . import audience
from .blocks import Blocks
from .parts import Parts

ATTRIBUTE = "duet"  # of an encoder's output


@dataclass
class Outcome:
    """What stage 1 made of one call of an encoder.

    Attributes:
        features: as the encoder's own (`Family.features`), but with merged tokens, and zeros where a token was removed.
        sizes: for each entry of it, (n,) float32: how many tokens each place stands for, 0 where one was removed.
        decisions: what was decided, in the order of encoding, for the trace.
        settings: of stage 1, as they were.
        engine_only: whether the encoder's own are `features` too, because nobody but the engine will see it.
    """

    features: Any
    sizes: list[Tensor]
    decisions: list[Merge]
    settings: tuple[Any, ...]
    engine_only: bool


@dataclass
class EncoderCall:
    """One call of `get_..._features`, from its entrance to its exit.

    Attributes:
        stage: the `Stage1` whose encoder was called.
        engine_only: see `Outcome`.
        arguments: the encoder's, positional ones by name.
        tower_kwargs: the tower's keyword arguments.
        hidden: (B, n, D) what the scoring attention was given.
        output: (B, n, D) what the scoring layer returned.
        scores, keys: per segment, (B, n) and (B, n, d) of the visual tokens that its patches become.
        length: tokens that the projector was given, of each image.
        kept: (B, K, D) tokens for the projector, until it has seen them.
        features: (total, D) merged tokens of all entries at their places, zeros elsewhere.
        sizes: (total,) float32, see `Outcome`.
        decisions: what was decided.
        shares: what is retained of each crop, where crops differ.
        blocks: which blocks of patches went into the tower, where `pixelprune` looks for those that repeat.
    """

    stage: Stage1
    engine_only: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    tower_kwargs: dict[str, Any] = field(default_factory=dict)
    hidden: Tensor = field(init=False, repr=False)  # there once the attention was called
    output: Tensor | None = None
    scores: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    length: int = 0
    kept: Tensor | None = None
    features: Tensor | None = None
    sizes: Tensor | None = None
    decisions: list[Merge] = field(default_factory=list)
    shares: list[Any] | None = None
    blocks: Blocks | None = None


_call: ContextVar[EncoderCall | None] = ContextVar("duet_vlm_encoder_call", default=None)


@contextlib.contextmanager
def within(call: EncoderCall | None) -> Iterator[None]:
    """Inside, taps collect for `call`; for none of them where it is None."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


class Stage1:
    """Stage 1 of one applied model: its encoders are wrapped, and taps stand on its towers.

    Bound methods are hooked, not closures, so that a deep copy of the model hooks its own modules.

    Args:
        core: the core model.
        config: the settings.
        family: the model's; it names the towers and the projector.
    """

    encoders: tuple[str, ...] = ("get_image_features", "get_video_features")

    def __init__(self, core: Any, config: Settings, family: Parts):
        self._core, self.config, self.family = Ref(core), config, family

    @property
    def core(self) -> Any:
        return self._core()

    @property
    def towers(self) -> list[Any]:
        return [getattr(self.core, name) for name in self.family.towers]

    @property
    def tower(self) -> Any:
        """The only tower, or the first."""
        return getattr(self.core, self.family.towers[0])

    @property
    def projector(self) -> Any:
        return getattr(self.core, self.family.projectors[0])

    def hook(self) -> list[Any]:
        wrapped = [wrap(self.core, name, self.around_encoder) for name in self.encoders if hasattr(self.core, name)]
        return [*wrapped, *self.taps()]

    def taps(self) -> list[Any]:
        """The hooks that collect; each asks `call()` first."""
        raise NotImplementedError

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        """Note what the scoring attention is given, (B, n, D), and its other arguments; see `taps.Tap`."""
        call.hidden = hidden

    def after_layer(self, call: EncoderCall, layer: Any) -> None:
        """Go on once `call.output` is there."""

    def after_tower(self, call: EncoderCall, tower: Any, output: Any) -> None:
        """Go on once the tower is done."""

    def after_encoder(self, call: EncoderCall, output: Any) -> None:
        """Go on once the encoder has returned its output, which has a `pooler_output`."""

    @torch.compiler.disable  # a graph would keep the answer of the call that traced it
    def call(self) -> EncoderCall | None:
        """Return the call of this model's encoder that is under way; None outside of one, and in a backward pass."""
        call = _call.get()
        return call if call is not None and call.stage is self else None

    @torch.compiler.disable  # in the graphs of some towers no hook runs
    def around_encoder(self, encoder: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        only = audience.engine_only()
        arguments = dict(inspect.signature(encoder).bind(*args, **kwargs).arguments)
        reason = self.cannot_follow(arguments)
        alone = self.config.pixelprune is not None and not only  # it works for the engine alone
        if reason is not None or alone:
            if only:
                raise DuetError(reason)
            with paused():
                return encoder(*args, **kwargs)
        call = EncoderCall(self, only, arguments)
        with within(call):
            output = encoder(*args, **kwargs)
        if isinstance(output, tuple):
            return output
        self.after_encoder(call, output)
        if call.features is not None and only and audience.handed_on():
            output[ATTRIBUTE] = self.outcome(call, output)
        elif call.features is not None:
            setattr(output, ATTRIBUTE, self.outcome(call, output))
        return output

    def cannot_follow(self, arguments: dict[str, Any]) -> str | None:
        """Why stage 1 cannot be done in a call with these arguments, which win over the config; None if it can."""
        config = self.core.config
        for name in ("vision_feature_layer", "vision_feature_select_strategy"):
            wanted, known = arguments.get(name), getattr(config, name, None)
            if wanted is not None and wanted != known:
                return (
                    f"{name}={wanted!r} came with a call, and stage 1 was applied for {known!r}: set it in the model's "
                    "config before apply, or use stage 2 alone (dominant=None)."
                )
        return None

    def outcome(self, call: EncoderCall, output: Any) -> Outcome:
        entries = self.family.entries(output)
        assert call.features is not None and call.sizes is not None
        lengths = [len(entry) for entry in entries]
        if sum(lengths) != len(call.features):
            raise DuetError(
                f"the encoder handed over {sum(lengths)} visual tokens where stage 1 saw {len(call.features)}: use "
                "stage 2 alone (dominant=None) with this model."
            )
        features: Any = call.features.view_as(entries) if isinstance(entries, Tensor) else call.features.split(lengths)
        sizes = list(call.sizes.split(lengths))
        return Outcome(features, sizes, call.decisions, settings_of(self.config), call.engine_only)


def paused() -> AbstractContextManager[None]:
    """Inside, no tap is at work: modules of the model can be called for something else."""
    return within(None)


def settings_of(config: Settings) -> tuple[Any, ...]:
    """Return the settings that stage 1 depends on."""
    names = ("dominant", "contextual", "cluster_width", "merging", "combine", "diverse", "rest", "downsample")
    return tuple(getattr(config, name) for name in (*names, "pixelprune"))


def placed(tokens: Tensor, places: Tensor, sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Put (B, K, D) tokens and their (B, K) sizes at `places` (B, K): (B, length, D) and (B, length), 0 elsewhere."""
    where = places[..., None].expand_as(tokens)
    full = tokens.new_zeros(len(tokens), length, tokens.shape[2]).scatter(1, where, tokens)
    counts = torch.zeros(len(tokens), length, dtype=torch.float32, device=tokens.device)
    return full, counts.scatter(1, places, sizes.float())


def merged_in_place(config: Settings, merge: Merge, features: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, D) features: every retained token at its own place, an anchor's place holding its contextual token.

    docs/method.md, 1.7, encoders without CLS.

    Returns:
        (B, N, D), zeros where a token was removed; (B, N) float32 sizes.
    """
    return placed(merge.retained(features), merge.places, merge.sizes, features.shape[1])
