"""`duet_vlm.check`: sound models pass, and a model broken on purpose is found by the promise that it breaks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import zoo
from saved import PATCHES, save
from stub_processor import Processor
from test_families import settings
from torch import Tensor, nn
from typer.testing import CliRunner

import duet_vlm
from duet_vlm import DuetConfig, DuetError, cache, engine, segments
from duet_vlm.checks import alike, counts, kept
from duet_vlm.checks.checking import PROMISES
from duet_vlm.checks.report import Report
from duet_vlm.cli import app
from duet_vlm.trace import DropTrace, ImageTrace

OFF, TEXT, REMOVED, CACHED, BATCH, COUNTS, BYTES, TURN, BEAMS, THREADS, FAILED = PROMISES
HOOK_KINDS = ("_forward_pre_hooks", "_forward_hooks")


def checked(model: Any, family: str = "llava", config: DuetConfig | None = None) -> Report:
    return duet_vlm.check(model, Processor(family), config or settings(family))


def results(report: Report) -> dict[str, str]:
    return {line.promise: line.result for line in report.lines}


def broken(report: Report) -> list[str]:
    return [line.promise for line in report.failing]


def note(report: Report, promise: str) -> str:
    return next(line.note for line in report.lines if line.promise == promise)


def hooks_of(model: Any) -> list[Any]:
    return [hook for m in model.modules() for kind in HOOK_KINDS for hook in getattr(m, kind).values()]


# ---- sound models ----


@pytest.mark.parametrize("family", [name for name in zoo.FAMILIES if name not in ("llava_mistral", "idefics3")])
def test_every_promise_holds_for_every_family(family: str) -> None:
    report = checked(zoo.build(family), family)
    assert results(report) == dict.fromkeys(PROMISES, "holds"), str(report)
    assert report.holds and not report.failing


@pytest.mark.parametrize(("attention", "dtype"), [("eager", torch.bfloat16), ("sdpa", torch.float16)])
def test_half_precision_and_eager_hold_within_their_own_rounding(attention: str, dtype: torch.dtype) -> None:
    report = checked(zoo.build("qwen2_5_vl", attention, dtype), "qwen2_5_vl")
    assert report.holds, str(report)
    assert report.about["dtype"] == str(dtype).removeprefix("torch.") and report.about["attention"] == attention
    full = checked(zoo.build("qwen2_5_vl"), "qwen2_5_vl")
    allowed = [{line.promise: line.allowed for line in made.lines} for made in (report, full)]
    assert allowed[0][CACHED] > 100 * allowed[1][CACHED] > 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ["stage 1 alone", "stage 2 alone", "proportional"])
def test_other_settings_hold(name: str) -> None:
    assert checked(zoo.build("llava"), config=settings("llava", name)).holds


def test_settings_that_compress_nothing_leave_counts_unchecked_and_say_so() -> None:
    report = checked(zoo.build("llava"), config=DuetConfig())
    assert {p for p, result in results(report).items() if result == "not checked"} == {COUNTS, BYTES}
    assert note(report, COUNTS) == "these settings compress nothing"
    assert report.holds


def test_settings_come_from_the_model_or_are_a_third_of_the_tokens() -> None:
    model = zoo.build("llava")
    first = duet_vlm.check(model, Processor("llava"))
    assert first.about["config"] == DuetConfig.preset("duet", model=model, keep=1 / 3).to_dict()
    model.config.duet = settings("llava").to_dict()
    assert duet_vlm.check(model, Processor("llava")).about["config"] == settings("llava").to_dict()
    assert model.config.duet == settings("llava").to_dict()


def test_the_model_is_left_as_it_was() -> None:
    model = zoo.build("llava").train()
    model.model.vision_tower.eval()
    model.generation_config.num_beams = 2
    mine = model.register_forward_hook(lambda *_: None)
    before = ([m.training for m in model.modules()], hooks_of(model), model.generation_config, torch.get_rng_state())
    assert checked(model).holds
    after = ([m.training for m in model.modules()], hooks_of(model), model.generation_config, torch.get_rng_state())
    assert after[0] == before[0] and [h for h in after[1] if not of_stock(h)] == before[1]
    assert after[2] is before[2] and torch.equal(after[3], before[3])
    assert model.generation_config.num_beams == 2 and not hasattr(model.config, "duet")
    mine.remove()


def of_stock(hook: Any) -> bool:
    """Stock modules put hooks on themselves when they are first called."""
    return str(hook.__module__).startswith("transformers.")


def test_the_model_is_used_and_checked_again_afterwards() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", ((5, "i", 9), (4,)))
    assert checked(model).holds and checked(model).holds
    with torch.no_grad():
        used, fresh = model(**batch, output_hidden_states=True), zoo.build("llava")(**batch, output_hidden_states=True)
    assert torch.equal(used.logits, fresh.logits) and len(used.hidden_states) == len(fresh.hidden_states)


def test_two_equal_calls_that_differ_leave_bit_for_bit_unchecked() -> None:
    model = zoo.build("llava")
    model.lm_head.register_forward_hook(lambda m, a, out: out + 1e-7 * torch.rand(1))
    report = checked(model)
    unchecked = {p for p, result in results(report).items() if result == "not checked"}
    assert unchecked == {OFF, TEXT, REMOVED, FAILED} and "between two equal calls" in note(report, OFF)


# ---- models and libraries that are broken on purpose: exactly one promise each ----

Break = Callable[[Any, pytest.MonkeyPatch], None]


def decoder(model: Any) -> Any:
    return model.model.language_model


def applied(model: Any) -> bool:
    return any(isinstance(getattr(h, "__self__", None), engine.Duet) for h in model._forward_pre_hooks.values())


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
    real = engine.Duet.remove

    def remove(self: Any) -> None:
        real(self)
        decoder(self.model).layers[2].register_forward_hook(lambda *_: None)

    patch.setattr(engine.Duet, "remove", remove)


def a_method_stays(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = engine.Duet.remove

    def remove(self: Any) -> None:
        real(self)
        self.model.model.get_image_features = self.model.model.get_image_features

    patch.setattr(engine.Duet, "remove", remove)


def settings_stay(model: Any, patch: pytest.MonkeyPatch) -> None:
    real = engine.Duet.remove

    def remove(self: Any) -> None:
        self.wrote_config = False
        real(self)

    patch.setattr(engine.Duet, "remove", remove)


def a_module_tells_the_cache(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: what the last norm gives depends on whether there is a cache."""
    seen_before(model, "cached", lambda k: bool(k.get("use_cache")))
    decoder(model).norm.register_forward_hook(lambda m, a, out: out * (1.05 if decoder(model).cached else 1))


def decoding_forgets_what_is_gone(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: keys are numbered without gaps in the prompt, and queries with gaps afterwards."""
    patch.setattr(segments, "_ropes", lambda hidden, positions, layers, rotary: {
        id(layer.removed): rotary(hidden, positions) for layer in layers
    })  # fmt: skip


def a_module_looks_at_other_rows(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: rows of a batch of different prompts are mixed."""

    def mix(m: Any, a: Any, out: Tensor) -> Tensor:
        return out + 0.05 * (out.mean(0, keepdim=True) - out)

    decoder(model).norm.register_forward_hook(mix)


def rows_choose_for_each_other(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: what a row of a batch keeps is chosen by its neighbour's scores."""
    real = engine.ranking.best

    def best(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
        return real(scores.roll(1, 0), spans, limits)

    patch.setattr(engine.ranking, "best", best)


def one_token_more_is_kept(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "SLACK", 1.0)


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


def beams_raise(model: Any, patch: pytest.MonkeyPatch) -> None:
    def reorder(self: Any, beam_idx: Tensor) -> None:
        raise RuntimeError("rows cannot be reordered")

    patch.setattr(cache.PrunedLayer, "reorder_cache", reorder)


def beams_are_not_reordered(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cache.PrunedLayer, "reorder_cache", lambda self, beam_idx: None)


def threads_share_a_number(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Stock too: a module keeps its input on itself and reads it a moment later."""
    norm = decoder(model).norm

    def note_input(m: Any, args: Any) -> None:
        m.last = args[0]
        time.sleep(0.002)

    norm.register_forward_pre_hook(note_input)
    norm.register_forward_hook(lambda m, a, out: out + (0 if m.last is a[0] else 0.5))


def a_failed_call_leaves_something(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Ours alone: what is counted at the entrance is not taken back when the exit is never reached."""
    inside = [0]
    decoder(model).register_forward_pre_hook(lambda m, a: inside.__setitem__(0, inside[0] + 1))
    decoder(model).register_forward_hook(lambda m, a, out: inside.__setitem__(0, inside[0] - 1))
    alone = threading.get_ident()
    model.lm_head.register_forward_hook(
        lambda m, a, out: out + (inside[0] if threading.get_ident() == alone else 0)
    )


BREAKS: dict[str, tuple[Break, str, str]] = {
    "off changes something": (off_changes_something, OFF, "DuetConfig()"),
    "text is touched": (text_is_touched, TEXT, "without a picture"),
    "a hook stays": (a_hook_stays, REMOVED, "LlamaDecoderLayer has other hooks or methods"),
    "a method stays": (a_method_stays, REMOVED, "LlavaModel has other hooks or methods"),
    "settings stay": (settings_stay, REMOVED, "config.duet is not what it was"),
    "a module tells the cache": (a_module_tells_the_cache, CACHED, "stock itself differs by"),
    "decoding forgets what is gone": (decoding_forgets_what_is_gone, CACHED, "stock's own difference is"),
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


# ---- the parts ----


def drop(kept_places: list[int], scores: list[float]) -> kept.Kept:
    return kept.Kept([], [DropTrace(2, kept_places, list(range(len(scores))), scores)])


def test_kept_places_that_differ_tell_how_far_their_scores_moved() -> None:
    a, b = drop([0, 1], [0.5, 0.300, 0.299, 0.1]), drop([0, 2], [0.5, 0.299, 0.302, 0.1])
    found = kept.compared(a, b)
    assert found is not None and (found.places, found.of, found.where) == (2, 2, "layer 2")
    assert found.apart == pytest.approx(0.003 / 0.302)
    assert kept.compared(a, a) is None
    assert kept.compared(a, None).apart == float("inf")  # type: ignore[union-attr]


def test_kept_places_that_are_not_the_best_by_score_are_far_apart_though_no_score_moved() -> None:
    scores = [0.5, 0.3, 0.2, 0.1]
    found = kept.compared(drop([0, 1], scores), drop([0, 3], scores))
    assert found is not None and found.apart == pytest.approx(0.2 / 0.3)
    fewer = kept.compared(drop([0, 1], scores), drop([0], scores))
    assert fewer is not None and fewer.apart == float("inf")


def test_stage_1_that_merges_otherwise_differs_too() -> None:
    one, other = (ImageTrace([0.4, 0.3, 0.2, 0.1], [0], [1], [members]) for members in ([2], [2, 3]))
    found = kept.compared(kept.Kept([one], []), kept.Kept([other], []))
    assert found is not None and found.where == "stage 1" and found.apart == 0


def test_places_tipped_by_rounding_are_compared_where_no_score_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bfloat16 ranking that is tipped in batches alone: a flip, not a fault; with a fault beside it, a fault."""
    real = engine.ranking.best

    def tipped(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
        keep = real(scores, spans, limits)
        if len(keep) == 3 and not tipped.blind:  # type: ignore[attr-defined]
            for row in range(2):  # the last kept one and the next best change places
                order = scores[row].masked_fill(spans[row] == 0, -1).argsort(descending=True)
                last, following = order[keep[row].sum() - 1], order[keep[row].sum()]
                keep[row, last], keep[row, following] = False, True
        return keep

    tipped.blind = False  # type: ignore[attr-defined]
    monkeypatch.setattr(engine.ranking, "best", tipped)
    asked = alike.blind

    def blind(config: DuetConfig) -> DuetConfig:
        tipped.blind = True  # type: ignore[attr-defined]
        return asked(config)

    monkeypatch.setattr(alike, "blind", blind)
    monkeypatch.setattr(kept, "_apart", lambda a, b: 1e-9)
    report = checked(zoo.build("llava"))
    assert report.holds, str(report)
    assert "compared with places that depend on no score" in note(report, BATCH)
    tipped.blind = False  # type: ignore[attr-defined]
    model = zoo.build("llava")
    decoder(model).norm.register_forward_hook(lambda m, a, out: out * (1.01 if len(out) == 3 and applied(model) else 1))
    assert BATCH in broken(checked(model))


@pytest.mark.parametrize("family", ["llava_next", "smolvlm", "llava_onevision", "qwen2_vl"])
def test_the_schedule_is_arithmetic_that_the_trace_agrees_with(family: str) -> None:
    model, row = zoo.build(family), Processor(family)("what is there ?", images=1)
    with duet_vlm.apply(model, settings(family), tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**row)
        trace = handle.trace
    assert trace is not None
    planned = counts.schedule(model.config, settings(family), row, trace.images, zoo.LAYERS)
    assert planned == trace.samples[0].tokens_per_layer
    assert planned[-1] < planned[0] < int((row["input_ids"] == zoo.IMAGE).sum())


def test_a_report_is_plain_data_and_reads_as_text() -> None:
    report = checked(zoo.build("llava"))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["holds"] and [line["promise"] for line in data["lines"]] == list(PROMISES)
    assert set(data["versions"]) == {"duet_vlm", "torch", "transformers", "python"}
    assert f"holds: {CACHED}." in str(report)


# ---- what cannot be checked ----


def test_what_cannot_be_checked_is_refused_in_a_sentence() -> None:
    model, processor = zoo.build("llava"), Processor("llava")
    for arguments, said in [
        (("llava-hf/llava-1.5-7b-hf", processor), "model 'llava-hf/llava-1.5-7b-hf' (str) is no transformers model"),
        ((None, processor), "model NoneType is no transformers model"),
        ((nn.Linear(2, 2), processor), "model Linear is no transformers model"),
        ((model, "llava-hf/llava-1.5-7b-hf"), "processor 'llava-hf/llava-1.5-7b-hf' (str) is no processor"),
        ((model, None), "processor NoneType is no processor"),
        ((model, processor.tokenizer), "processor Tokenizer is no processor"),
        ((model, processor, {"dominant": 3}), "config dict is no DuetConfig"),
        ((model, processor, DuetConfig(drops=[duet_vlm.Drop(99, 0.5)])), "drop layer 99 is not possible"),
        ((zoo_text_model(), processor), "models of type 'llama' are not supported"),
    ]:
        with pytest.raises(DuetError) as error:
            duet_vlm.check(*arguments)  # type: ignore[arg-type]
        assert said in str(error.value) and "\n" not in str(error.value)
    with duet_vlm.apply(model, settings("llava"), tokenizer=tiny.Words()) as handle:
        with pytest.raises(DuetError, match="compressed already"):
            duet_vlm.check(model, processor)
        assert model.config.duet == handle.config.to_dict() and applied(model)
    assert not [hook for hook in hooks_of(model) if not of_stock(hook)]


def zoo_text_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**tiny.TEXT, "num_hidden_layers": 1}))


# ---- the command ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("check") / "model")


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["check", *(str(a) for a in arguments)], terminal_width=200)


def test_the_command_prints_a_table_with_versions(folder: Path) -> None:
    result = duet("--model", folder, "--device", "cpu")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for said in (f"duet-vlm {duet_vlm.__version__}", f"torch {torch.__version__}", "float32", "sdpa", "recomputed"):
        assert said in shown


def test_the_command_writes_figures_and_takes_settings(folder: Path, tmp_path: Path) -> None:
    result = duet("--model", folder, "--method", "visionzip", "--keep", 0.5, "--json", "-", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["dtype"] == "bfloat16" and report["config"]["merging"] == "visionzip"
    assert report["config"]["dominant"] + report["config"]["contextual"] == PATCHES // 2
    assert [line["promise"] for line in report["lines"]] == list(PROMISES)


def test_a_failing_promise_is_named_and_the_exit_status_is_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beams_raise(None, monkeypatch)
    result = duet("--model", folder)
    assert result.exit_code == 1
    assert result.stderr == f"duet: does not hold: {BEAMS}: RuntimeError: rows cannot be reordered\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere/at/all"], "is no folder"),
        (["--dtype", "int3"], "dtype 'int3' is unknown"),
        (["--device", "abacus"], "device 'abacus' is not available here"),
        (["--tokens", "5", "--keep", "0.5"], "are both a budget"),
        (["--method", "magic"], "method 'magic' is unknown"),
        (["--json", "nowhere/check.json"], "its folder does not exist"),
    ],
)
def test_what_the_command_cannot_check_is_a_sentence_and_status_2(options: list[str], said: str) -> None:
    result = duet(*options)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("duet: ") and said in result.stderr and result.stderr.count("\n") == 1


def test_the_demonstration_model_keeps_every_promise() -> None:
    result = duet("--json", "-", "--device", "cpu")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["checked"] == "the demonstration model" and report["holds"]
    assert {line["result"] for line in report["lines"]} == {"holds"}
