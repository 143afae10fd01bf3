"""`duet bench`: its options and its output. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.budget_rule import SAVED
from ..console import options, terminal
from ..errors import DuetError
from ..inputs.choice import check_choices, option_names
from ..inputs.devices import check_device, check_dtype
from ..inputs.files import STDOUT
from ..serving.bench.options import (
    CONCURRENCY,
    EACH,
    ServingOptions,
    check_engine,
    check_installed,
    check_shape,
)
from .target import Target


def bench(
    model: options.AnyModel = None,
    shape: options.Shape = None,
    layers: Annotated[
        int | None, typer.Option(help="With --shape: fewer decoder layers, with the drop layers scaled.", min=1)
    ] = None,
    method: options.Methods = None,
    tokens: options.TokensList = None,
    keep: options.KeepList = None,
    runs: Annotated[int, typer.Option(help="Timed rounds; medians are reported.", min=1)] = 5,
    batch_size: Annotated[
        int | None, typer.Option(help="Prompts at a time, one image each; 1 if not given.", min=1)
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Text tokens of each prompt.", min=4)] = 64,
    image: options.ImageSize = None,
    grid: options.Grid = None,
    tiles: options.Tiles = None,
    decode_steps: Annotated[int, typer.Option(help="Tokens decoded after each prefill.", min=1)] = 16,
    dtype: options.Dtype = "bfloat16",
    device: options.Device = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="transformers, or vllm to time requests as a server has them.")
    ] = "transformers",
    concurrency: Annotated[
        list[int] | None, typer.Option(help="In vLLM: clients that ask at a time; 1 8 32 if not given.", min=1)
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="In vLLM: how often each client asks in a round; 2 if not given.", min=1)
    ] = None,
    threads: options.Threads = None,
    train: Annotated[bool, typer.Option("--train", help="Time training steps instead.")] = False,
    tune: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="With --train: lora, full; both if not given.")
    ] = None,
    answer_tokens: Annotated[int, typer.Option(help="With --train: text tokens that are the answer.", min=1)] = 32,
    rank: Annotated[int, typer.Option(help="With --train: the rank of LoRA's adapters.", min=1)] = 16,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="With --train: compute layers again in the backward pass.")
    ] = False,
    json_file: options.JsonFile = None,
    config_file: options.ConfigFile = None,
) -> None:
    """Time stock against compressed, side by side in one run, and compare with what the FLOPs promise.

    Vision tower, stage 1, prefill, decoding per token, KV bytes and peak memory. With --shape the weights are random,
    pixels and words always are. Without --image an image has 24 x 24 visual tokens where a model takes any size, one
    tile, or the largest grid of crops. Without a budget 192, 128 and 64 tokens of LLaVA-1.5's 576 are timed, and 0.33,
    0.22 and 0.11 of what other images, crops or tiles have.

    With --engine vllm: requests per second, time to the first token and per further token, at every --concurrency. Each
    setting has an engine of its own, and they take turns.

    Examples:

      duet bench --shape llava-1.5-7b --layers 8 --json bench.json

      duet bench --model ./my-llava --tokens 192 64 --method duet fastv --device cuda

      duet bench --shape qwen2.5-vl-7b --image 1280x720 --layers 4 --keep 0.33 0.11

      duet bench --engine vllm --shape llava-1.5-7b --layers 8 --tokens 192 --concurrency 1 8 32

      duet bench --train --shape llava-1.5-7b --layers 4 --tune lora --json train.json
    """
    terminal.check_json(json_file)
    check_engine(
        engine,
        {"--concurrency": concurrency, "--requests": requests},
        {"--train": train, "--tune": tune, "--batch-size": batch_size, "--tiles": tiles, "--device": device},
    )
    if layers and not shape:
        raise DuetError(f"--layers {layers} needs --shape: a model's own layers are all used.")
    target = Target.of(model, shape, image=image, grid=grid, tiles=tiles)
    problems = check_choices(method, tokens or [], keep or [], target.brings, default=True)
    if problems:
        raise DuetError(problems[0])
    check_dtype(dtype)
    if engine == "vllm":
        serving = ServingOptions(
            runs, tuple(concurrency or CONCURRENCY), requests or EACH, text_tokens, decode_steps, dtype, threads
        )
        if shape:
            check_shape(shape)
        check_installed()
        report = _in_vllm(target, method, tokens or [], keep or [], layers, serving)
        terminal.write_json(report, json_file)
        if json_file != STDOUT:
            from ..serving.bench.table import serving_table

            terminal.console().print(serving_table(report))
        return
    batch_size = batch_size or 1
    from ..families import family_of
    from ..families.audio_only import AudioOnly
    from ..families.image_shape import ImageShape
    from ..families.random_images import check_text_length, usual_grid
    from ..inputs.checkpoints import read_weights
    from ..inputs.random_weights import random_model
    from ..measuring import train_bench, train_options
    from ..measuring.bench import Options, benchmark, steps
    from ..measuring.settings import settings, shortened, usual_budgets

    config, laid = target.read()
    if isinstance(family_of(config), AudioOnly):
        raise DuetError(
            f"{target.name} sees no images, and images are what is timed: try duet budget --seconds instead."
        )
    methods = _methods(config, method, tokens or keep)
    counted, shares = (tokens or [], keep or []) if tokens or keep else usual_budgets(config, laid.grid)
    with option_names():
        listed = settings(config, methods, counted, layers, laid.grid, laid.tiles, size=laid.size, keep=shares)
        check_text_length(ImageShape.of(config, laid.grid or usual_grid(config), laid.tiles, laid.size), text_tokens)
    device = check_device(device)
    how = Options(
        runs, batch_size, text_tokens, decode_steps, dtype, device, threads, laid.grid, laid.tiles, laid.size
    )  # fmt: skip
    if train:
        train_options.check_timed(config, grid, tiles, image)
        training = train_options.TrainOptions(
            runs, batch_size, text_tokens, answer_tokens, tuple(tune or train_options.TUNES), rank, checkpointing,
            dtype, device, threads,
        )  # fmt: skip
    with terminal.status() as status:
        if model:
            status("Loading the model")
            network = read_weights(model, how.dtype, how.device)
        else:
            status("Filling random weights")
            network = random_model(shortened(config, layers), how.dtype, how.device)
    with terminal.progress(train_bench.steps(listed, training) if train else steps(listed, how)) as bar:
        if train:
            figures = train_bench.benchmark(network, listed, training, bar.begin)
            whole = settings(config, methods, counted, keep=shares)
            train_bench.add_full_depth(figures, config, whole, training)
        else:
            figures = benchmark(network, listed, how, bar.begin)
    report = {"model": target.name, **figures}
    terminal.write_json(report, json_file)
    if json_file != STDOUT:
        from ..console.tables import bench_table, train_table

        for table in [train_table(report, tuned) for tuned in training.tunes] if train else [bench_table(report)]:
            terminal.console().print(table)


def _methods(config: Any, given: list[str] | None, budgets: list[float] | None) -> list[str]:
    """The methods given; without any and without a budget, the settings that the model brings."""
    brings = not budgets and getattr(config, "duet", None) is not None
    return given or ([SAVED] if brings else ["duet"])


def _in_vllm(
    target: Target, method: list[str] | None, tokens: list[float], keep: list[float], layers: int | None,
    how: ServingOptions,
) -> dict[str, Any]:  # fmt: skip
    """What the whole of `--engine vllm` measures."""
    from ..measuring.settings import settings, usual_budgets
    from ..serving.bench.measure import benchmark, steps
    from ..serving.bench.model import source
    from ..serving.bench.shape_folder import KINDS
    from ..serving.engines import check_served

    config, laid = target.read()
    if target.shape:
        config.architectures = [KINDS[config.model_type].architecture]
    counted, shares = (tokens, keep) if tokens or keep else usual_budgets(config, laid.grid)
    with option_names():
        methods = _methods(config, method, tokens or keep)
        listed = settings(config, methods, counted, layers, laid.grid, size=laid.size, keep=shares)
    check_served(config, [setting.config for setting in listed], target.model)
    with source(target.model, config, target.shape, layers) as found, terminal.progress(steps(listed, how)) as bar:
        figures = benchmark(config, layers, listed, found, how, laid.grid, laid.size, bar.begin)
    return {"model": target.name, **figures}
