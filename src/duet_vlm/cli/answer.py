"""What `duet run` does: one question about one picture, compressed, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..applying import apply
from ..config.budget_rule import SAVED
from ..families import family_of, is_visual
from ..host import layers_with_keys, output_cache
from ..inputs.files import writing
from ..inputs.model_folders import DEMO
from ..inputs.prepared import Prepared
from ..measuring.generation import TokenTimes, bytes_per_token
from ..presets import DuetConfig
from ..stage2.words import finder

ROW_ENDS = " The budget is that of the image's patches; tokens that end rows go, which leaves {:.1%} of all its tokens."


def answer(prepared: Prepared, status: Callable[[str], Any] = lambda _: None) -> dict[str, Any]:
    """Answer compressed, and uncompressed if that was asked for; draw the picture if that was asked for.

    Returns:
        JSON-able: the answer, tokens per stage, KV tokens and bytes, seconds; `uncompressed` with the same fields;
        `words_found_by`, what found the words that ask (`words.finder`), or None where no words are asked for.
    """
    request, model = prepared.request, prepared.model
    stock = None
    if request.compare:
        status("Warming up")
        _generate(prepared, 2)
        status("Answering uncompressed")
        stock = _generate(prepared)
    with apply(model, prepared.config, tokenizer=prepared.processor) as handle:
        if request.compare:
            _generate(prepared, 2)
        status("Answering")
        found = _generate(prepared)
        trace = handle.trace
    whole = int(is_visual(model.config, prepared.inputs["input_ids"]).sum())
    layers = model.config.get_text_config().num_hidden_layers
    counts = [whole] * layers if trace is None else trace.samples[0].work_per_layer
    again = trace is not None and trace.samples[0].fell_back
    report = {
        "model": "the demonstration model" if request.model == DEMO else request.model,
        "media": "image" if prepared.clip is None else "video",
        "question": request.ask.strip(),
        "method": prepared.chosen.method,
        "settings": prepared.chosen.words,
        "config": prepared.config.to_dict(),
        **found,
        **_tokens(whole, counts, prepared.config),
        "note": "One first call, not warmed up; to measure speed use duet bench.",
        "unknown_words": prepared.unknown_words,
        "words_found_by": finder(prepared.config.language) if _asks_by_words(prepared.config) else None,
    }
    if stock is not None:
        report["uncompressed"] = stock | _tokens(whole, [whole] * layers, DuetConfig())
        report["note"] = "One run of each after a warm-up, no benchmark; to measure speed use duet bench."
    if again:
        report["note"] += " The first token was unsure, so the answer was given again with all visual tokens."
    report["kept"] = report["tokens_average"] / whole
    if prepared.config.merges and family_of(model.config).packed_sizes(prepared.inputs) is not None:
        report["note"] += ROW_ENDS.format(report["kept"])
    if request.show is not None:
        status("Drawing")
        from ..pictures.visualize import picture

        figure = picture(prepared, trace, title=title(report), counts=counts)
        with writing(request.show, "the picture"):
            figure.savefig(request.show, dpi=150)
    return report | {"trace": None if trace is None else trace.to_dict()}


def title(report: dict[str, Any]) -> str:
    """Method, budget and answer in one line."""
    if report["method"] == "none":
        return f"no compression, answer: {report['answer']}"
    average, whole = report["tokens_average"], report["visual_tokens"]
    method = "settings saved with the model" if report["method"] == SAVED else report["method"]
    return f"{method}, {average:.1f} of {whole} visual tokens on average, answer: {report['answer']}"


def _generate(prepared: Prepared, max_new_tokens: int | None = None) -> dict[str, Any]:
    """One greedy answer with its times and its cache."""
    clock, prompt_length = TokenTimes(), prepared.inputs["input_ids"].shape[1]
    started = time.perf_counter()
    out = prepared.model.generate(
        **prepared.inputs, do_sample=False, max_new_tokens=max_new_tokens or prepared.request.max_new_tokens,
        streamer=clock, return_dict_in_generate=True,
    )  # fmt: skip
    tokens = out.sequences[0, prompt_length:]
    # the last token was never fed back
    stored = [layer.keys.shape[-2] - len(tokens) + 1 for layer in layers_with_keys(output_cache(out))]
    per_token = [size for size in bytes_per_token(output_cache(out)) if size]
    return {
        "answer": prepared.processor.decode(tokens, skip_special_tokens=True).strip(),
        "new_tokens": len(tokens),
        "kv_tokens": sum(stored) / len(stored),
        "kv_bytes": sum(n * size for n, size in zip(stored, per_token, strict=True)),
        "seconds_to_first_token": clock.times[1] - started,
        "seconds": clock.times[-1] - started,
    }


def _asks_by_words(config: DuetConfig) -> bool:
    return config.ranks and config.query == "salient"


def _tokens(whole: int, counts: list[int], config: DuetConfig) -> dict[str, Any]:
    return {
        "visual_tokens": whole,
        "tokens_in": counts[0],
        "drops": [{"layer": drop.layer, "tokens": counts[drop.layer]} for drop in config.drops],
        "tokens_per_layer": counts,
        "tokens_average": sum(counts) / len(counts),
    }
