"""`duet serve`: its options and its refusals. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated, Any

import typer

from ..console import terminal
from ..console.options import ConfigFile, Coverage, Device, Dtype, History, Keep, Method, Model, Threads, Tokens
from ..errors import DuetError
from ..inputs.choice import Chosen, check_choice
from ..inputs.devices import check_dtype
from ..inputs.model_folders import DEMO, adapted, brings_settings, existing
from ..inputs.prepared import DEFAULT_KEEP
from .engines import ENGINES, check_engine
from .limits import Limits

DEFAULT = Limits()
LOOPBACK = "127.0.0.1"


def serve(
    model: Model = DEMO,
    method: Method = None,
    tokens: Tokens = None,
    keep: Keep = None,
    coverage: Coverage = None,
    history: History = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(ENGINES)}; auto takes vllm where it can serve the model.")
    ] = "auto",
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The address to listen at; by default only this machine can ask.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65535)] = 8000,
    print_line: Annotated[
        bool, typer.Option("--print", help="Print the command line that serves the model in vLLM, and end.")
    ] = False,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Fetch pictures by http and https, from public addresses alone."),
    ] = False,
    max_images: Annotated[int, typer.Option(help="The most pictures of a request.", min=0)] = DEFAULT.images,
    max_image_bytes: Annotated[
        int, typer.Option(help="The most bytes of a picture's file.", min=1)
    ] = DEFAULT.image_bytes,
    max_image_pixels: Annotated[
        int, typer.Option(help="The most pixels of a picture, width times height.", min=1)
    ] = DEFAULT.image_pixels,
    max_prompt_tokens: Annotated[
        int,
        typer.Option(help="The longest prompt, in tokens before compression; less where the model takes less.", min=1),
    ] = DEFAULT.prompt_tokens,
    max_new_tokens: Annotated[
        int, typer.Option(help="The longest answer, in tokens; a request may ask for less.", min=1)
    ] = DEFAULT.new_tokens,
    queue: Annotated[
        int | None,
        typer.Option(
            help=f"The most requests that run and wait, others are told to come again (503); {DEFAULT.queue} by "
            "transformers, in vLLM as many as come.",
            min=1,
            show_default=False,
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Threads = None,
    config_file: ConfigFile = None,
) -> None:
    """Serve a model with compressed visual tokens, for clients of OpenAI's API: docs/serving.md.

    Without a budget a third of the visual tokens is kept, on average over the layers.

    Examples:

      duet serve

      duet serve --model llava-hf/llava-1.5-7b-hf --tokens 192 --port 8001

      duet serve --model Qwen/Qwen2.5-VL-7B-Instruct --keep 0.3 --engine vllm --print
    """
    check_engine(engine)
    check_dtype(dtype)
    check_choice(method, tokens, keep, brings_settings(model), True, coverage)
    limits = Limits(
        max_images, max_image_bytes, max_image_pixels, max_prompt_tokens, max_new_tokens, queue or DEFAULT.queue,
        allow_urls,
    )  # fmt: skip
    if print_line and engine == "transformers":
        raise DuetError("--print shows how vLLM is started, and engine 'transformers' is none: leave one of them out.")
    place = (host, port)
    with terminal.status() as status:
        from ..inputs.checkpoints import read_config
        from ..inputs.choice import chosen
        from .engines import choose

        config = read_config(model)
        settings = chosen(config, method, tokens, keep, DEFAULT_KEEP, coverage=coverage, history=history)
        asked = "vllm" if print_line else engine
        adapter = adapted(existing(model)) is not None
        found = choose(asked, config, settings.config, adapter, here=not print_line)
        if found.name == "transformers":
            terminal.set_threads(threads)
            serving, taken = _loaded(model, settings, limits, place, dtype, device, status)
    if found.name == "transformers":
        from .server import url_of

        how = f"at {url_of(taken)} by transformers, since {found.why}"
        serving.run(taken, lambda: _tell(f"serving {model} {how}: {settings.words}."))
        return
    from .vllm_line import Place, arguments, environment

    for name, value in (("--device", device), ("--threads", threads)):
        if value is not None:
            raise DuetError(f"{name} {value} is for the transformers engine, and vllm serves: leave it out.")
    words = arguments(model, config, settings, limits, Place(*place), dtype, queue)
    if print_line:
        print(shlex.join(["env", *(f"{k}={v}" for k, v in environment(limits).items()), "python", *words]))
        return
    _tell(f"serving {model} in vLLM, since {found.why}: {settings.words}.")
    os.execve(sys.executable, [sys.executable, *words], {**os.environ, **environment(limits)})


def _loaded(
    model: str, settings: Chosen, limits: Limits, place: tuple[str, int], dtype: str, device: str | None, status: Any
) -> tuple[Any, Any]:
    """The server of a model by transformers, and the socket it is to listen at; the cheap things first."""
    status("Loading the server")
    try:
        from .server import Serving, listening
    except ImportError as error:
        raise DuetError(f"duet serve needs {error.name}: pip install 'duet-vlm[serve]'.") from error
    taken = listening(*place)
    from ..applying import apply
    from ..inputs.checkpoints import read_model
    from ..inputs.devices import check_device

    status("Loading the model")
    network, processor = read_model(model, dtype, check_device(device))
    handle = apply(network, settings.config, tokenizer=processor)
    return Serving(model, handle, processor, limits), taken


def _tell(text: str) -> None:
    print(f"duet: {text}", file=sys.stderr, flush=True)
