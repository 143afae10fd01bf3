"""`duet bench`: its options and its output. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import terminal
from ..console.options import Device, Dtype, Grid, JsonFile, Model, Shape, Tiles, one_of
from ..errors import DuetError


def bench(
    model: Model = None,
    shape: Shape = None,
    layers: Annotated[
        int | None, typer.Option(help="With --shape: fewer decoder layers, with the drop layers scaled.", min=1)
    ] = None,
    tokens: Annotated[
        list[float] | None,
        typer.Option(
            help="Budgets, visual tokens per image (crop, tile) and layer, the option once for each; 192, 128, 64 if "
            "not given."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods, the option once for each: duet, duet-plus, visionzip, ..., or saved: the settings saved "
            "with the model. Without a method and a budget these, where there are any; else duet."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Timed rounds; medians are reported.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time, one image each.", min=1)] = 1,
    text_tokens: Annotated[int, typer.Option(help="Text tokens of each prompt.", min=4)] = 64,
    grid: Grid = None,
    tiles: Tiles = None,
    decode_steps: Annotated[int, typer.Option(help="Tokens decoded after each prefill.", min=1)] = 16,
    dtype: Dtype = "bfloat16",
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's default if not given.", min=1)] = None,
    train: Annotated[bool, typer.Option("--train", help="Time training steps instead.")] = False,
    tune: Annotated[
        list[str] | None, typer.Option(help="With --train: lora or full, the option once for each; both if not given.")
    ] = None,
    answer_tokens: Annotated[int, typer.Option(help="With --train: text tokens that are the answer.", min=1)] = 32,
    rank: Annotated[int, typer.Option(help="With --train: the rank of LoRA's adapters.", min=1)] = 16,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="With --train: compute layers again in the backward pass.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Time stock against compressed, side by side in one run, and compare with what the FLOPs promise.

    Vision tower, stage 1, prefill, decoding per token, KV bytes and peak memory. With --shape the weights are random.
    Pixels and words always are; an image has 24 x 24 visual tokens where a model takes any size, unless --grid says so.

    Examples:

      duet bench --shape llava-1.5-7b --layers 8 --json bench.json

      duet bench --model ./my-llava --tokens 192 --tokens 64 --method duet --method fastv --device cuda

      duet bench --train --shape llava-1.5-7b --layers 4 --tune lora --json train.json
    """
    from ..families.image_shape import ImageShape
    from ..families.random_images import check_text, usual_grid
    from ..inputs.checkpoints import read_config, read_weights
    from ..inputs.choice import SAVED, option_names
    from ..inputs.devices import check_device, check_dtype
    from ..inputs.random_weights import random_model
    from ..inputs.shapes import shape_config
    from ..measuring.bench import Options, benchmark, steps
    from ..measuring.settings import settings, shortened

    terminal.check_json(json_file)
    if layers and not shape:
        raise DuetError(f"--layers {layers} needs --shape: a model's own layers are all used.")
    config = shape_config(shape) if shape and not model else read_config(one_of(model, shape))
    methods, budgets = method or ["duet"], tokens or [192.0, 128.0, 64.0]
    if not method and not tokens and getattr(config, "duet", None) is not None:
        methods = [SAVED]
    with option_names():
        listed = settings(config, methods, budgets, layers, grid, tiles)
        check_text(ImageShape.of(config, grid or usual_grid(config), tiles), text_tokens)
    dtype, device = check_dtype(dtype), check_device(device)
    how = Options(runs, batch_size, text_tokens, decode_steps, dtype, device, threads, grid, tiles)
    if train:
        from ..measuring import train_bench, train_options

        train_options.check(config, grid, tiles)
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
    with terminal.progress(train_bench.steps(listed, training) if train else steps(listed, how)) as advance:
        if train:
            whole = settings(config, methods, budgets)
            figures = train_bench.benchmark(network, listed, training, advance)
            train_bench.add_full_depth(figures, config, whole, training)
        else:
            figures = benchmark(network, listed, how, advance)
    report = {"model": model or shape, **figures}
    terminal.write_json(report, json_file)
    if json_file != Path("-"):
        from ..console.tables import bench_table, train_table

        tables = [train_table(report, tuned) for tuned in training.tunes] if train else [bench_table(report)]
        for table in tables:
            terminal.console().print(table)
