"""Published shapes against what is published of the models, and their layouts against stock processors."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
import torch
import zoo
from PIL import Image
from published_shapes import (
    COUNTED,
    HEARING,
    KNOWN,
    LAYERS,
    NAMED,
    NOT_LAID_OUT,
    STAGE_2_ALONE,
    TORCHVISION,
    WITHOUT_SHAPE,
)
from saved import config as tiny_config
from saved import processor as tiny_processor
from transformers import AutoConfig, AutoModelForMultimodalLM
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.errors import DuetError
from duet_vlm.families import FAMILIES
from duet_vlm.families.image_shape import ImageShape
from duet_vlm.families.random_images import usual_grid
from duet_vlm.inputs.image_sizes import layout
from duet_vlm.inputs.shapes import SHAPES, shape_config
from duet_vlm.measuring import bench
from duet_vlm.measuring.bench import Options
from duet_vlm.measuring.settings import Setting


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_every_shape_is_checked() -> None:
    assert set(SHAPES) == {*LAYERS, "tiny"}
    assert {name for name, _, _ in KNOWN} | NOT_LAID_OUT == set(LAYERS)


def test_every_family_has_a_shape() -> None:
    assert {shape_config(name).model_type for name in SHAPES} | WITHOUT_SHAPE == set(FAMILIES)


@pytest.mark.parametrize("name", LAYERS)
def test_a_shape_has_the_layers_and_the_parameters_of_its_checkpoint(name: str) -> None:
    config = shape_config(name)
    with torch.device("meta"):
        model = AutoModelForMultimodalLM.from_config(config)
    assert config.get_text_config().num_hidden_layers == LAYERS[name]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if name in COUNTED:
        assert parameters == COUNTED[name][1]
    else:
        assert parameters == pytest.approx(NAMED[name][1] * 1e9, rel=0.06)


def test_sizes_of_glm_are_those_of_the_stock_classes() -> None:
    found, stock = shape_config("glm-4.1v-9b"), AutoConfig.for_model("glm4v")
    assert found.vision_config.to_dict() == stock.vision_config.to_dict()
    mine, theirs = ({**config.text_config.to_dict(), "rope_parameters": None} for config in (found, stock))
    assert mine == theirs


@pytest.mark.parametrize("name", ["qwen3.5-9b", "qwen3.5-35b-a3b"])
def test_sizes_of_qwen3_5_are_the_defaults_of_transformers(name: str) -> None:
    config = shape_config(name)
    for part, others in ((config.text_config, {"pad_token_id", "rope_parameters"}),
                         (config.vision_config, {"out_hidden_size"})):  # fmt: skip
        ours, defaults = part.to_dict(), type(part)().to_dict()
        assert {key for key in ours | defaults if ours.get(key) != defaults.get(key)} == others
    assert config.vision_config.out_hidden_size == config.text_config.hidden_size
    rope = config.text_config.rope_parameters
    assert 2 * sum(rope["mrope_section"]) == rope["partial_rotary_factor"] * config.text_config.head_dim


@pytest.mark.parametrize(("name", "width", "height"), KNOWN)
def test_an_image_is_laid_out_as_the_model_lays_it_out(name: str, width: int, height: int) -> None:
    config = shape_config(name)
    laid = layout(config, None, name, (width, height))
    image = ImageShape.of(config, laid.grid or usual_grid(config), laid.tiles, laid.size)
    assert (laid, image.visual_tokens) == KNOWN[name, width, height]


@pytest.mark.parametrize("pixels", [(224, 112), (200, 160), (90, 300), (57, 57), (1000, 100)])
@pytest.mark.parametrize("family", ["llava_next"])
def test_a_photo_with_padding_has_as_many_tokens_as_its_processor_writes(family: str, pixels: tuple[int, int]) -> None:
    config, made = tiny_config(family), tiny_processor(family)
    ids = made(images=Image.new("RGB", pixels), text="<image>", return_tensors="pt")["input_ids"]
    written = int((ids == made.tokenizer.convert_tokens_to_ids("<image>")).sum())
    laid = layout(config, None, "llava-next-7b", pixels)
    assert ImageShape.of(config, laid.grid, laid.tiles, laid.size).visual_tokens == written


@pytest.mark.parametrize("shape", [shape for shape in LAYERS if shape not in TORCHVISION | HEARING])
def test_budget_and_its_image_size(shape: str) -> None:
    known = next(key for key in [*KNOWN, (shape, 336, 336)] if key[0] == shape)
    method = "none+duet" if shape in STAGE_2_ALONE else "duet"
    asked = ("budget", "--shape", shape, "--image", f"{known[1]}x{known[2]}", "--keep", 0.3)
    if method != "duet":
        refused = duet(*asked)
        assert refused.exit_code == 2 and "stage 2 alone" in refused.stderr
    result = duet(*asked, "--method", method, "--json", "-")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["visual_tokens"] == (KNOWN[known][1] if known in KNOWN else 576)
    assert len(report["layers"]) == LAYERS[shape]
    assert report["average_tokens"] == pytest.approx(0.3 * report["visual_tokens"], rel=0.06)


@pytest.mark.parametrize(("shape", "tokens"), [("qwen2-audio-7b", 750), ("voxtral-mini-3b", 375)])
def test_a_model_that_only_hears_has_a_budget_of_sound(shape: str, tokens: int) -> None:
    asked = ("--shape", shape, "--method", "none+duet", "--keep", 0.3)
    report = json.loads(duet("budget", *asked, "--seconds", 30, "--audio-keep", 0.3, "--json", "-").stdout)
    assert report["visual_tokens"] == 0 and report["audio_tokens"] == tokens
    assert report["average_audio_tokens"] == pytest.approx(0.3 * tokens, rel=0.01)
    refused = duet("bench", *asked)
    assert refused.exit_code == 2 and f"{shape} sees no images" in refused.stderr


def test_several_budgets_are_rows() -> None:
    common = ("budget", "--shape", "llava-1.5-7b", "--method", "duet", "fastv", "none", "--tokens", 192, 64)
    budgets = json.loads(duet(*common, "--json", "-").stdout)["budgets"]
    assert [(b["method"], round(b["average_tokens"])) for b in budgets] == [
        ("duet", 192), ("duet", 64), ("fastv", 192), ("fastv", 64), ("none", 576),
    ]  # fmt: skip
    alone = json.loads(duet("budget", "--shape", "llava-1.5-7b", "--tokens", 192, "--json", "-").stdout)
    assert alone == budgets[0]
    words = " ".join(duet(*common).stdout.split())
    assert "fastv, --tokens 64" in words and "nothing compressed" in words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "1280"], "--image '1280' is no size: write two whole numbers, as in --image 48x64."),
        (["--image", "0x9"], "--image '0x9' is no size"),
        (["--image", "90x90", "--grid", "8x8"], "--image 90x90 says what --grid says: give one of them."),
        (["--image", "90x90", "--tiles", "2"], "--image 90x90 says what --tiles says: give one of them."),
        (["--image", "9000x9"], "an image of 9000x9 pixels cannot be laid out (absolute aspect ratio must be smaller"),
    ],
)
def test_sizes_that_cannot_be(options: list[str], message: str) -> None:
    for command in ("budget", "bench"):
        result = duet(command, "--shape", "qwen2.5-vl-7b", "--keep", 0.3, *options)
        assert result.exit_code == 2 and result.stderr.startswith("duet: ") and message in result.stderr, result.output


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(DuetError, match=r"shape 'qwen' is unknown: choose one of llava-1\.5-7b, .*smolvlm2, .*\."):
        shape_config("qwen")


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_a_photo_with_padding_is_timed_with_the_tokens_that_are_stored(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark's prompt has as many places as the model packs features, and caches hold what is counted."""
    monkeypatch.setattr(bench, "OVERHEAD_STEPS", 10)
    model = zoo.build(family)
    config = DuetConfig(6, 2, drops=[Drop(2, 0.4), Drop(4, 0.0)])
    options = Options(runs=1, text_tokens=7, decode_steps=1, dtype="float32", size=(20, 100))
    largest = ImageShape.of(model.config).visual_tokens
    report = bench.benchmark(model, [Setting("stock", None, DuetConfig()), Setting("duet", 5, config)], options)
    stock, (row,) = report["stock"], report["settings"]
    assert 0 < stock["tokens_in"] < largest
    for found in (stock, row):
        assert found["kv_bytes"] == found["kv_bytes_expected"]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_shape_whose_processor_cannot_be_loaded_takes_tiles() -> None:
    common = ("budget", "--shape", "command-a-vision-112b", "--keep", 0.3)
    refused = duet(*common, "--image", "1280x720")
    assert refused.exit_code == 2
    assert "Cohere2VisionImageProcessor, which lays out images of command-a-vision-112b" in refused.stderr
    report = json.loads(duet(*common, "--tiles", 9, "--json", "-").stdout)
    assert report["visual_tokens"] == 9 * 256
