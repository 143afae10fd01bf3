"""A model or library that is broken on purpose is found by the promise that it breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from check_cases import (
    BATCH,
    BEAMS,
    BYTES,
    CACHED,
    COUNTS,
    FAILED,
    OFF,
    REMOVED,
    TEXT,
    THREADS,
    TURN,
    applied,
    beams_raise,
    broken,
    checked,
    decoder,
    note,
)
from torch import Tensor, nn

from duet_vlm import DuetConfig
from duet_vlm.engine import cache, dropping, handle, noted, segments

# ---- models and libraries that are broken on purpose: exactly one promise each ----

Break = Callable[[Any, pytest.MonkeyPatch], None]


def seen_before(model: nn.Module, attribute: str, value: Callable[[Any], Any]) -> None:
    """Note something of every call of the decoder on the module itself."""
    decoder(model).register_forward_pre_hook(
        lambda m, a, k: setattr(m, attribute, value(k)), with_kwargs=True, prepend=True
    )


def is_off(model: Any) -> bool:
    return DuetConfig().to_dict() == getattr(model.config, "duet", None)


def off_changes_something(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.lm_head.register_forward_hook(lambda m, a, out: out + (1e-6 if applied(model) and is_off(model) else 0))


def text_is_touched(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Two units in the last place, where a compressed model gets a prompt without a picture."""
    core = decoder(model)
    model.model.register_forward_pre_hook(
        lambda m, a, k: setattr(core, "text", not bool((k["input_ids"] == zoo.IMAGE).any())), with_kwargs=True
    )
    core.norm.register_forward_hook(
        lambda m, a, out: out * (1 + 2.4e-7) if applied(model) and not is_off(model) and core.text else out
    )


def a_hook_stays(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = handle.Duet.remove

    def remove(self: Any) -> None:
        real(self)
        decoder(self.model).layers[2].register_forward_hook(lambda *_: None)

    patch.setattr(handle.Duet, "remove", remove)


def a_method_stays(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = handle.Duet.remove

    def remove(self: Any) -> None:
        real(self)
        self.model.model.get_image_features = self.model.model.get_image_features

    patch.setattr(handle.Duet, "remove", remove)


def settings_stay(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(noted.Noted, "take_back", lambda self, config: None)


def a_module_tells_the_cache(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: what the last norm gives depends on whether there is a cache."""
    seen_before(model, "cached", lambda k: bool(k.get("use_cache")))
    decoder(model).norm.register_forward_hook(lambda m, a, out: out * (1.05 if decoder(model).cached else 1))


def decoding_forgets_what_is_gone(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: keys are numbered without gaps in the prompt, and queries with gaps afterwards."""
    patch.setattr(segments, "_ropes", lambda hidden, positions, layers, rotary: {
        id(layer.held.removed): rotary(hidden, positions) for layer in layers
    })  # fmt: skip


def a_module_looks_at_other_rows(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: rows of a batch of different prompts are mixed."""

    def mix(m: Any, a: Any, out: Tensor) -> Tensor:
        return out + 0.05 * (out.mean(0, keepdim=True) - out)

    decoder(model).norm.register_forward_hook(mix)


def rows_choose_for_each_other(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: what a row of a batch keeps is chosen by its neighbour's scores."""
    real = dropping.ranking.top_per_span

    def best(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
        return real(scores.roll(1, 0), spans, limits)

    patch.setattr(dropping.ranking, "top_per_span", best)


def one_token_more_is_kept(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dropping, "SLACK", 1.0)


def one_token_too_many_is_stored(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = cache.PrunedLayer.update

    def update(self: Any, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = real(self, key, value, *args, **kwargs)
        room = torch.empty(*self.keys.shape[:2], self.keys.shape[2] + 1, self.keys.shape[3])
        room[:, :, :-1] = self.keys
        self.keys = room[:, :, :-1]  # a view of what is one token longer
        return found

    patch.setattr(cache.PrunedLayer, "update", update)


def a_later_turn_is_off(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Several tokens on a cache that holds a prompt."""
    seen_before(model, "later", lambda k: _past(k) > 0 and k["inputs_embeds"].shape[1] > 1)
    decoder(model).norm.register_forward_hook(lambda m, a, out: out * (1.05 if decoder(model).later else 1))


def _past(kwargs: dict[str, Any]) -> int:
    held = next((kwargs[name] for name in ("cache", "past_key_values") if kwargs.get(name) is not None), None)
    return 0 if held is None else held.get_seq_length()


def beams_are_not_reordered(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cache.PrunedLayer, "reorder_cache", lambda self, beam_idx: None)


def threads_share_a_number(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: a module keeps its input on itself and reads it a moment later."""
    norm = decoder(model).norm

    def note_input(m: Any, args: Any) -> None:
        m.last = args[0]
        if threading.current_thread() is threading.main_thread():
            return
        for _ in range(100):  # until another thread has been here, or none is left
            time.sleep(0.001)
            if m.last is not args[0]:
                return

    norm.register_forward_pre_hook(note_input)
    norm.register_forward_hook(lambda m, a, out: out + (0 if m.last is a[0] else 0.5))


def a_failed_call_leaves_something(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: what is counted at the entrance is not taken back when the exit is never reached."""
    inside = [0]
    decoder(model).register_forward_pre_hook(lambda m, a: inside.__setitem__(0, inside[0] + 1))
    decoder(model).register_forward_hook(lambda m, a, out: inside.__setitem__(0, inside[0] - 1))
    alone = threading.get_ident()
    model.lm_head.register_forward_hook(lambda m, a, out: out + (inside[0] if threading.get_ident() == alone else 0))


BREAKS: dict[str, tuple[Break, str, str]] = {
    "off changes something": (off_changes_something, OFF, " instead of 0; logits"),
    "text is touched": (text_is_touched, TEXT, "without a picture"),
    "a hook stays": (a_hook_stays, REMOVED, "LlamaDecoderLayer has other hooks or methods"),
    "a method stays": (a_method_stays, REMOVED, "LlavaModel has other hooks or methods"),
    "settings stay": (settings_stay, REMOVED, "config.duet is not what it was"),
    "a module tells the cache": (a_module_tells_the_cache, CACHED, "stock itself differs by"),
    "decoding forgets what is gone": (decoding_forgets_what_is_gone, CACHED, " instead of at most "),
    "a module looks at other rows": (a_module_looks_at_other_rows, BATCH, "stock itself differs by"),
    "rows choose for each other": (rows_choose_for_each_other, BATCH, "kept places differ at layer 2"),
    "one token more is kept": (one_token_more_is_kept, COUNTS, "tokens per layer instead of"),
    "one token too many is stored": (one_token_too_many_is_stored, BYTES, "bytes"),
    "a later turn is off": (a_later_turn_is_off, TURN, "stock itself differs by"),
    "beams raise": (beams_raise, BEAMS, "RuntimeError: rows cannot be reordered"),
    "beams are not reordered": (beams_are_not_reordered, BEAMS, "3 beams, 2 returned"),
    "threads share a number": (threads_share_a_number, THREADS, "stock itself differs by"),
    "a failed call leaves something": (a_failed_call_leaves_something, FAILED, "a call that ended half-way"),
}
# what follows from the first: these promises are about the same mechanism
FOLLOWS = {
    "a module tells the cache": {TURN},
    "a module looks at other rows": {BEAMS},
    "decoding forgets what is gone": {TURN},
    "one token more is kept": {BYTES},
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found_by_the_promise_that_it_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking, promise, said = BREAKS[name]
    model = zoo.build("llava")
    breaking(model, monkeypatch)
    report = checked(model)
    assert set(broken(report)) == {promise} | FOLLOWS.get(name, set()), str(report)
    assert said in note(report, promise)
