"""What `duet run` needs of a model: read, and the prompt encoded, the cheap things first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..families import family_of, is_visual
from ..families.placeholders import check_text
from ..inputs.checkpoints import read_config, read_processor, read_weights
from ..inputs.choice import chosen
from ..inputs.devices import check_device
from ..inputs.model_folders import DEMO
from ..inputs.prepared import DEFAULT_KEEP, Prepared, Request
from ..inputs.prompts import processing, prompt, special_tokens
from ..inputs.video.inputs import check_model, content, show_frames, video_inputs
from ..measuring.reinvest import frames_for

UNKNOWN_TO_DEMO = "the demonstration model knows drawn scenes only{}; for photos give --model."


def prepare_run(request: Request, image: Any, status: Callable[[str], Any] = lambda _: None) -> Prepared:
    """Read the model's config, processor and weights and encode the prompt, the cheap things first.

    Args:
        request: one that `refusals.refuse` found good.
        image: the picture that it read; None for a video.

    Raises:
        DuetError: one sentence that says what to put right.
    """
    question = request.ask.strip()
    device = check_device(request.device)
    config = read_config(request.model)
    if image is None:
        check_model(config, request.media)
    budget = partial(
        chosen, config, request.method, request.tokens, request.keep, DEFAULT_KEEP, coverage=request.coverage,
        history=request.history,
    )  # fmt: skip
    # where images differ in size, tokens are a share of this very one
    settings = None if request.tokens is not None and family_of(config).dynamic else budget()
    status("Loading the processor")
    processor: Any = read_processor(request.model)
    check_text(question, processor, config)
    marks = special_tokens(processor)
    clip, notes = None, list[str]()
    if image is None:
        status("Decoding the video")
        count = request.frames if isinstance(request.frames, int) else None
        clip = show_frames(request.media, config, processor, count)
        encode = partial(video_inputs, config, processor, clip, prompt(processor, question, content(config, clip)))
        if request.frames == "auto":
            with processing(repr(str(request.media)), "choose another picture or model"):
                usual = encode(**marks)
            settings = settings or budget(grid=family_of(config).grid_of(config, usual))
            clip, note = more_frames(request.media, config, processor, settings.config, clip, usual)
            notes.append(note)
            encode = partial(video_inputs, config, processor, clip, prompt(processor, question, content(config, clip)))
    else:
        encode = partial(processor, images=image, text=prompt(processor, question), return_tensors="pt")
    with processing(repr(str(request.media)), "choose another picture or model"):
        inputs = encode(**marks)
    if settings is None:
        settings = budget(grid=family_of(config).grid_of(config, inputs))
    status("Loading the model")
    model = read_weights(request.model, request.dtype, device)
    words = list[str]()
    if request.model == DEMO:
        words, notes = demo_notes(question, image)
    inputs = inputs.to(model.device, model.dtype)
    return Prepared(request, image, clip, settings, model, processor, inputs, words, notes)


def more_frames(path: Any, config: Any, processor: Any, duet: Any, clip: Any, inputs: Any) -> tuple[Any, str]:
    """As many frames as cost, compressed, what those of `clip` cost uncompressed, and a sentence that says so.

    Args:
        path: of the video.
        config, processor: of the model.
        duet: the settings.
        clip: the frames that the model takes by itself.
        inputs: what its processor made of them.
    """
    visual = int(is_visual(config, inputs["input_ids"]).sum())
    text = inputs["input_ids"].shape[1] - visual
    together = getattr(config.vision_config, "temporal_patch_size", None) or 1
    parts = max(1, len(clip.indices) // together)
    count = min(clip.total, together * frames_for(config, duet, visual // parts, parts, text))
    if count <= len(clip.indices):
        return clip, f"--frames auto: {len(clip.indices)} frames, as the model takes by itself."
    note = f"--frames auto: {count} frames cost no more than {len(clip.indices)} do uncompressed."
    return show_frames(path, config, processor, count), note


def demo_notes(question: str, image: Any) -> tuple[list[str], list[str]]:
    """The words of a question that the demonstration model has never seen; a sentence where it cannot know better."""
    from ..demo.recognise import is_scene
    from ..demo.vocabulary import unknown_words

    words = unknown_words(question)
    if not words and is_scene(image):
        return words, []
    never = f" and has never seen these words: {', '.join(words)}" if words else ""
    return words, [UNKNOWN_TO_DEMO.format(never)]
