"""`duet bench --engine vllm` without vLLM: figures of recorded times, the model's folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import duet, refused
from PIL import Image

from duet_vlm import DuetError
from duet_vlm.inputs.checkpoints import read_config, read_processor
from duet_vlm.inputs.model_folders import DEMO, DEMO_FOLDER
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.serving.bench import options
from duet_vlm.serving.bench.engines import last_words
from duet_vlm.serving.bench.figures import Answered, Round, check_whole, figures
from duet_vlm.serving.bench.measure import environment
from duet_vlm.serving.bench.model import image_of, prompt_of, source
from duet_vlm.serving.bench.options import ServingOptions


def a_round(*requests: tuple[float, float, float]) -> Round:
    """Requests by when they were asked, when the first token came and when the last, of five."""
    return Round(tuple(Answered(asked, first, last, 5, 70) for asked, first, last in requests))


def test_figures_of_recorded_times() -> None:
    # two rounds of two requests: 4 s and 8 s, then 5 s and 5 s
    stock = [a_round((10, 12, 14), (10, 14, 18)), a_round((0, 1, 5), (0, 1, 5))]
    ours = [a_round((20, 21, 22), (20, 21, 22)), a_round((7, 8, 10), (8, 9, 11))]
    row = figures(2, stock)
    assert row == {
        "concurrency": 2,
        "requests": 4,
        "requests_per_s": pytest.approx((2 / 8 + 2 / 5) / 2),
        "first_token_ms": pytest.approx(1500),  # of 2, 4, 1 and 1 s
        "per_token_ms": pytest.approx(1000),  # of 2, 4, 4 and 4 s for four tokens
        "answer_tokens_per_s": pytest.approx((10 / 8 + 10 / 5) / 2),
    }
    row = figures(2, ours, stock)
    assert row["requests_per_s"] == pytest.approx((2 / 2 + 2 / 4) / 2)
    assert row["requests_speedup"] == pytest.approx(0.75 / 0.325)
    assert row["requests_speedup_range"] == pytest.approx([0.5 / 0.4, 1 / 0.25])
    assert row["first_token_speedup"] == pytest.approx(1.5)
    assert row["per_token_speedup"] == pytest.approx(1 / 0.375)  # of 1, 1, 2 and 2 s for four tokens


def test_what_an_engine_writes_is_read() -> None:
    written = {"asked": 1.0, "first": 2.0, "last": 4.0, "tokens": 3, "prompt_tokens": 9}
    found = Round.of(json.loads(json.dumps({"requests": [written]})))
    assert found.requests[0].to_first == 1 and found.requests[0].per_token == 1 and found.seconds == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"requests": 3}, "duet 192 answered 2 of 3 requests"),
        ({"tokens": 6}, "duet 192 answered with 5 tokens where 6 were asked for"),
        ({"prompt_tokens": 71}, "duet 192 computed prompts of 70 tokens where its schedule has 71"),
    ],
)
def test_rounds_that_are_not_whole(changed: dict[str, int], message: str) -> None:
    whole = {"requests": 2, "tokens": 5, "prompt_tokens": 70}
    found = a_round((0, 1, 2), (0, 1, 2))
    check_whole("duet 192", found, **whole)
    with pytest.raises(DuetError, match=message):
        check_whole("duet 192", found, **whole | changed)


def test_why_an_engine_ended() -> None:
    killed = [
        "(EngineCore pid=7) ERROR [multiproc_executor.py:316] Worker proc VllmWorker-0 died unexpectedly "
        "(exit code: -9), shutting down executor.\n",
        "(EngineCore pid=7) ERROR 11-27 20:35:02 [core.py:9] RuntimeError: cancelled\n",
    ]
    assert last_words(killed) == "its worker was killed, which a system does that has no memory left"
    failed = ["INFO started\n", "ERROR [a.py:1] ValueError: no such model.\n", "ERROR [b.py:2] RuntimeError: failed\n"]
    assert last_words(failed) == "ValueError: no such model"
    cancelled = "ERROR [c.py:3] RuntimeError: cancelled\n"
    assert (
        last_words([cancelled, *failed]) == "ValueError: no such model" and last_words([cancelled]) == cancelled[15:-1]
    )
    assert last_words(["only this\n"]) == "only this" and last_words([]) == "it said nothing"


def test_a_step_of_many_prompts_may_take_its_time() -> None:
    given = environment(2)
    assert int(given["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"]) > 300 and given["OMP_NUM_THREADS"] == "2"


def test_a_shape_is_a_folder_with_a_processor_and_is_gone_afterwards() -> None:
    config = shape_config("llava-1.5-7b")
    with source(None, config, "llava-1.5-7b", 8) as found:
        assert found.arguments == {"load_format": "dummy"}
        written = read_config(found.folder)
        assert written.architectures == ["LlavaForConditionalGeneration"]
        assert written.text_config.num_hidden_layers == 8 and config.text_config.num_hidden_layers == 32
        assert written.vision_config == config.vision_config
        tokenizer = read_processor(found.folder).tokenizer
        assert len(tokenizer) == config.text_config.vocab_size
        assert tokenizer.convert_tokens_to_ids("<image>") == config.image_token_id
        ids = prompt_of(config, found.folder, 64)
        assert len(ids) == 65 and ids.index(config.image_token_id) == 5 and ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids[6:14]) == "green circle ? What number is on the"
        image, pixels = image_of(config, None, None)
        assert (image.visual_tokens, pixels) == (576, (336, 336))
    assert not Path(found.folder).exists()


@pytest.mark.parametrize(("shape", "side"), [("qwen2.5-vl-7b", 14), ("qwen3-vl-8b", 16)])
def test_the_folder_of_a_shape_whose_images_differ(shape: str, side: int) -> None:
    config = shape_config(shape)
    with source(None, config, shape, 2) as found:
        assert read_config(found.folder).text_config.num_hidden_layers == 2
        processor = read_processor(found.folder)
        assert type(processor).__name__ == {14: "Qwen2_5_VLProcessor", 16: "Qwen3VLProcessor"}[side]
        ids = prompt_of(config, found.folder, 64)
        place = ids.index(config.image_token_id)
        assert len(ids) == 65
        assert [ids[place - 1], ids[place + 1]] == [config.vision_start_token_id, config.vision_end_token_id]
        image, pixels = image_of(config, None, None)
        assert (image.visual_tokens, pixels) == (576, (48 * side, 48 * side))
        # the processor leaves such a picture as large as it is
        made = processor(images=Image.new("RGB", pixels), text=processor.tokenizer.decode(ids), return_tensors="pt")
        assert made["input_ids"][0].tolist() == ids[:place] + [config.image_token_id] * 576 + ids[place + 1 :]


def test_the_demonstration_model_is_copied_for_vllm() -> None:
    from safetensors import safe_open

    def names(folder: Path) -> set[str]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return set(file.keys())

    with source(DEMO, read_config(DEMO), None, None) as found:
        got = names(Path(found.folder))
        assert {name.replace("vision_tower.vision_model.", "vision_tower.") for name in got} == names(DEMO_FOLDER)
        assert not any(name.startswith("vision_tower.") and "vision_model" not in name for name in got)
        ids = prompt_of(read_config(found.folder), found.folder, 20)
        assert len(ids) == 21
    assert not Path(found.folder).exists()


VLLM = ["bench", "--engine", "vllm", "--shape", "llava-1.5-7b", "--layers", "8", "--tokens", "192"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([*VLLM, "--train"], "--train is for --engine transformers, and vllm is timed"),
        ([*VLLM, "--tune", "lora", "full"], "--tune lora full is for --engine transformers"),
        ([*VLLM, "--batch-size", "4"], "--batch-size 4 is for --engine transformers"),
        ([*VLLM, "--device", "cpu"], "--device cpu is for --engine transformers"),
        ([*VLLM, "--tiles", "2"], "--tiles 2 is for --engine transformers"),
        ([*VLLM, "--concurrency", "8", "8"], "concurrency 8 is given twice"),
        ([*VLLM, "--text-tokens", "6"], "text_tokens 6 are too few beside an image in vLLM: give 8 or more."),
        (["bench", "--engine", "vllm", "--shape", "tiny"], "shape 'tiny' is not measured in vLLM"),
        (["bench", "--engine", "sglang", "--shape", "tiny"], "engine 'sglang' is unknown: choose one of transformers,"),
        (["bench", "--shape", "tiny", "--concurrency", "1", "8"], "--concurrency 1 8 is for --engine vllm"),
        (["bench", "--shape", "tiny", "--requests", "3"], "--requests 3 is for --engine vllm"),
        (VLLM, "vLLM is not installed here, and --engine vllm times it"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, given: list[str], message: str) -> None:
    monkeypatch.setattr(options, "installed", lambda: False)
    refused(duet(*given), message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--method", "downsample", "--keep", "0.5"], "downsample is not possible in vLLM"),
        (["--tokens", "999"], "999"),
    ],
)
def test_settings_that_vllm_cannot_do_are_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, given: list[str], message: str
) -> None:
    monkeypatch.setattr(options, "installed", lambda: True)
    refused(duet("bench", "--engine", "vllm", "--model", "demo", *given), message)


@pytest.mark.parametrize(
    "changed", [{"runs": 0}, {"requests": 0}, {"decode_steps": 0}, {"concurrency": ()}, {"concurrency": (0,)}]
)
def test_options(changed: dict[str, Any]) -> None:
    with pytest.raises(DuetError, match=next(iter(changed))):
        ServingOptions(**changed)
