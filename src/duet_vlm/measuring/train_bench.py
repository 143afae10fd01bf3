"""A training step, stock against compressed, side by side in one run: how much of what FLOPs allow does it save?

As LLaVA-1.5 is tuned (arXiv 2310.03744): the vision tower is frozen and the projector trained, with either adapters on
the language model or all of it. Forward, backward and AdamW are timed apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from ..applying import apply
from ..errors import DuetError
from ..families import family_of
from ..families.image_shape import ImageShape
from ..host import decoder_of
from ..presets import DuetConfig
from .settings import STOCK, Setting, label
from .summary import head, median_peak
from .timing import Clock, PeakMemory, hardware, median, versions
from .train_costs import step_flops
from .train_options import TrainOptions
from .workload import OneWordPerToken, Workload

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PAPER = {192.0: 0.26, 128.0: 0.31, 64.0: 0.36}  # training time saved, arXiv 2602.18846, LLaVA-1.5-7B
WARM_UPS = 1
ALL_LOGITS = "stock, all logits"


def allowed(config: PreTrainedConfig, duet: DuetConfig, options: TrainOptions, tune: str) -> float:
    """The share of a stock step's operations that a compressed one leaves out."""
    image, layers = ImageShape.of(config), config.get_text_config().num_hidden_layers
    stock = flops_of(config, [image.visual_tokens] * layers, options, tune)
    return 1 - flops_of(config, image.tokens_per_layer(duet, layers), options, tune) / stock


def flops_of(
    config: PreTrainedConfig, counts: list[int], options: TrainOptions, tune: str, logits: int | None = None
) -> int:
    """`step_flops` as measured here: logits that predict the answer, and one more, where not said otherwise."""
    logits = options.answer_tokens + 1 if logits is None else logits
    return step_flops(config, counts, options.text_tokens, logits, tune, options.checkpointing)


@contextmanager
def tuned(model: Any, tune: str, options: TrainOptions) -> Iterator[tuple[Any, torch.optim.Optimizer]]:
    """The model to call and its optimizer; adapters are taken off again, weights stay as the steps left them."""
    language_model = decoder_of(model)
    projector = getattr(model.base_model, family_of(model.config).projectors[0])
    model.requires_grad_(False)
    called, before = model, model.training
    if tune == "lora":
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise DuetError("tune 'lora' needs adapters: pip install 'duet-vlm[train]', or tune 'full'.") from error
        targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
        called = get_peft_model(model, LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets))
    else:
        language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    projector.requires_grad_(True)
    called.train()
    if options.checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        # fused, as the Trainer takes it
        yield called, torch.optim.AdamW((p for p in called.parameters() if p.requires_grad), lr=1e-6, fused=True)
    finally:
        if options.checkpointing:
            model.activation_checkpointing_disable()
        if tune == "lora":
            called.unload()
        model.train(before)


def steps(listed: list[Setting], options: TrainOptions) -> int:
    """How often `benchmark` calls `advance`."""
    return (WARM_UPS + options.runs) * (len(listed) + 1) * len(options.tunes)


def benchmark(
    model: Any, listed: list[Setting], options: TrainOptions, advance: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Time steps of every setting, interleaved, for each way to tune, and compare with stock.

    Stock computes logits on supervised positions too, so that a share speaks of tokens alone; what that saves shows
    in a line of its own, `all_logits`.

    Args:
        model: a supported model of one size of image, without compression.
        listed: from `settings.settings`, stock first.
        options: how to measure.
        advance: called with a description before each of `steps(...)` pieces of work.

    Returns:
        JSON-able: `tunes` (way to tune -> `stock`, `all_logits`, `settings`), `options`, `hardware`, `versions`.
    """
    threads = torch.get_num_threads()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        return {
            "tunes": {tune: _tune(model, listed, options, tune, advance) for tune in options.tunes},
            "options": asdict(options) | {"layers": model.config.get_text_config().num_hidden_layers},
            "unit": ImageShape.of(model.config).unit,
            "hardware": hardware(options.device),
            "versions": versions(),
        }
    finally:
        torch.set_num_threads(threads)


def _tune(
    model: Any, listed: list[Setting], options: TrainOptions, tune: str, advance: Callable[[str], None]
) -> dict[str, Any]:
    work = Workload(model, options.batch_size, options.text_tokens)
    timed = [Setting(ALL_LOGITS, None, DuetConfig()), *listed]
    figures_of: list[dict[str, list[Any]]] = [{} for _ in timed]
    with tuned(model, tune, options) as (called, optimizer):
        for run in range(WARM_UPS + options.runs):
            for setting, notes in zip(timed, figures_of, strict=True):
                advance(f"{tune}, {label(setting)}, {'warm-up' if run < WARM_UPS else f'run {run + 1 - WARM_UPS}'}")
                figures = step_once(work, called, optimizer, setting, options)
                if run >= WARM_UPS:
                    for name, value in figures.items():
                        notes.setdefault(name, []).append(value)
    rows = [summarise(work, s, n, figures_of[1], options, tune) for s, n in zip(timed, figures_of, strict=True)]
    return {"all_logits": rows[0], "stock": rows[1], "settings": rows[2:]}


def step_once(
    work: Workload, called: Any, optimizer: torch.optim.Optimizer, setting: Setting, options: TrainOptions
) -> dict[str, Any]:
    """One step: seconds and bytes."""
    clock, memory = Clock(options.device), PeakMemory(options.device)
    labels = work.ids.clone()
    labels[:, : -options.answer_tokens] = -100
    inputs: dict[str, Any] = dict(work.encoder_inputs, input_ids=work.ids, labels=labels)
    inputs["attention_mask"] = torch.ones_like(work.ids)
    if setting.method == ALL_LOGITS:
        inputs["logits_to_keep"] = 0
    with apply(called, setting.config, tokenizer=OneWordPerToken(), full_logits=False):
        memory.start()
        forward, loss = clock.time(lambda: called(**inputs, use_cache=False).loss)
        backward, _ = clock.time(loss.backward)
        update, _ = clock.time(optimizer.step)
        peak = memory.read()
    optimizer.zero_grad()
    return {"forward": forward, "backward": backward, "optimizer": update, "peak": peak, "loss": loss.item()}


def summarise(
    work: Workload,
    setting: Setting,
    notes: dict[str, list[Any]],
    stock: dict[str, list[Any]],
    options: TrainOptions,
    tune: str,
) -> dict[str, Any]:
    """Medians, and what is saved of stock's."""
    config, counts = work.model.config, work.tokens_per_layer(setting.config)
    logits = counts[0] + options.text_tokens if setting.method == ALL_LOGITS else None
    flops = options.batch_size * flops_of(config, counts, options, tune, logits)
    row: dict[str, Any] = {
        **head(setting, counts),
        **{f"{part}_ms": 1e3 * median(notes[part]) for part in ("forward", "backward", "optimizer")},
        "step_ms": 1e3 * median(_whole(notes)),
        "peak_memory": median_peak(notes),
        "loss": median(notes["loss"]),
        "step_flops": flops,
    }
    if setting.method == STOCK:
        return row
    promised = allowed(config, setting.config, options, tune)
    paired = [1 - now / before for now, before in zip(_whole(notes), _whole(stock), strict=True)]
    saved = 1 - median(_whole(notes)) / median(_whole(stock))
    passes = 1 - median(_passes(notes)) / median(_passes(stock))
    row |= {"saved": saved, "saved_range": [min(paired), max(paired)], "saved_of_passes": passes}
    if setting.method == ALL_LOGITS:
        return row
    return row | {
        "config": setting.config.to_dict(),
        "allowed": promised,
        "share": saved / promised,
        "share_of_passes": passes / promised,
        "paper": PAPER.get(setting.tokens or 0.0) if setting.method == "duet" else None,
    }


def add_full_depth(
    report: dict[str, Any], config: PreTrainedConfig, listed: list[Setting], options: TrainOptions
) -> None:
    """Beside each setting's `allowed`, what the FLOPs of the whole model allow: `config` and `listed` unscaled."""
    for tune, found in report["tunes"].items():
        for row, setting in zip(found["settings"], listed[1:], strict=True):
            row["allowed_full_depth"] = allowed(config, setting.config, options, tune)


def _passes(notes: dict[str, list[Any]]) -> list[float]:
    return [forward + backward for forward, backward in zip(notes["forward"], notes["backward"], strict=True)]


def _whole(notes: dict[str, list[Any]]) -> list[float]:
    return [spent + update for spent, update in zip(_passes(notes), notes["optimizer"], strict=True)]
