"""Published shapes against what is published of the models, and their layouts against stock processors."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
import torch
import zoo
from PIL import Image
from saved import config as tiny_config
from saved import processor as tiny_processor
from transformers import AutoConfig, AutoModelForImageTextToText
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.errors import DuetError
from duet_vlm.families import FAMILIES
from duet_vlm.families.image_shape import ImageShape
from duet_vlm.families.random_images import usual_grid
from duet_vlm.inputs.image_sizes import Layout, layout
from duet_vlm.inputs.shapes import SHAPES, shape_config
from duet_vlm.measuring import bench
from duet_vlm.measuring.bench import Options
from duet_vlm.measuring.settings import Setting

# decoder layers, and the parameters that the hub counts in the checkpoint's safetensors
COUNTED = {
    "llava-1.5-7b": (32, 7_063_427_072),
    "llava-1.5-13b": (40, 13_351_494_656),
    "llava-next-7b": (32, 7_063_431_168),  # and the row end
    "llava-onevision-7b": (28, 8_030_348_832),
    "qwen2-vl-7b": (28, 8_291_375_616),
    "qwen2.5-vl-7b": (28, 8_292_166_656),
    "qwen3-vl-8b": (36, 8_767_123_696),
    "qwen3-vl-30b-a3b": (48, 31_070_754_032),
    "internvl3-8b": (28, 7_944_373_760),
    "gemma-3-4b": (34, 4_300_079_472),
    "gemma-4-e4b": (42, 7_632_344_064),  # not the hub's figure, which counts the audio tower
    "smolvlm2": (24, 2_246_784_880),
    "mistral-small-3.1-24b": (40, 24_011_361_280),
}
# not the hub's figures, which were not looked at: decoder layers, and the billions of the checkpoint's name or card
NAMED = {
    "llava-next-video-7b": (32, 7), "vip-llava-7b": (32, 7), "video-llava-7b": (32, 7), "idefics3-8b": (32, 8),
    "aya-vision-8b": (32, 8.6), "command-a-vision-112b": (64, 112), "videollama3-7b": (28, 8), "ovis2-2b": (28, 2.2),
    "qwen2.5-omni-7b": (28, 8.9),  # with the audio encoder, without talker and vocoder
    "glm-4.1v-9b": (40, 10), "glm-4.6v-flash": (40, 10), "glm-4.5v": (46, 108), "glm-ocr": (16, 1.1),
    "deepseek-vl-1.3b": (24, 1.98), "deepseek-vl-7b": (30, 7.34), "janus-pro-1b": (24, 2.09),
    "llama-4-scout": (48, 109), "lfm2-vl-1.6b": (16, 1.6), "paddleocr-vl": (18, 0.9),
    "qwen3-omni-30b-a3b": (48, 31.7),  # the thinker with the audio encoder
    "paligemma-3b": (18, 2.92), "qwen3.5-9b": (32, 9.4), "qwen3.5-35b-a3b": (40, 35),
}  # fmt: skip
LAYERS = {name: layers for name, (layers, _) in (COUNTED | NAMED).items()}
# (shape, width, height) -> the layout, and the visual tokens of the whole image
KNOWN: dict[tuple[str, int, int], tuple[Layout, int]] = {
    ("llava-1.5-7b", 1280, 720): (Layout(), 576),
    ("llava-next-7b", 336, 336): (Layout(size=(336, 336)), 1176),
    ("llava-next-7b", 672, 672): (Layout(size=(672, 672)), 2928),
    ("llava-next-7b", 640, 480): (Layout(size=(480, 640)), 2340),
    ("llava-next-video-7b", 672, 672): (Layout(size=(672, 672)), 2928),
    ("vip-llava-7b", 1280, 720): (Layout(), 576),
    ("paligemma-3b", 1280, 720): (Layout(), 256),
    ("deepseek-vl-1.3b", 1280, 720): (Layout(), 576),
    ("deepseek-vl-7b", 1280, 720): (Layout(), 576),
    ("janus-pro-1b", 1280, 720): (Layout(), 576),
    # 32 pixels a token: 22 x 40
    ("qwen3-omni-30b-a3b", 1280, 704): (Layout(grid=(44, 80)), 22 * 40),
    # 28 pixels a token: 26 x 46
    ("paddleocr-vl", 1288, 728): (Layout(grid=(52, 92)), 26 * 46),
    ("video-llava-7b", 1280, 720): (Layout(), 256),
    # one crop of 27 x 27 patches with 27 row ends, and the base
    ("llava-onevision-7b", 384, 384): (Layout(size=(384, 384)), 27 * 28 + 729),
    # 14 pixels a patch, 2 x 2 patches a token: 26 x 46 tokens
    ("qwen2.5-vl-7b", 1288, 728): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2.5-vl-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2-vl-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2.5-omni-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # 16 pixels a patch: 720 / 32 = 22.5 rounds to the even 22
    ("qwen3-vl-8b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("qwen3-vl-30b-a3b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("glm-4.1v-9b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-4.6v-flash", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-4.5v", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-ocr", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # the same in patches of 14 pixels, row breaks being text
    ("mistral-small-3.1-24b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # 720 / 14 and 1280 / 14, to the nearest whole number; images are not merged
    ("videollama3-7b", 1280, 720): (Layout(grid=(51, 91)), 51 * 91),
    ("qwen3.5-9b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("qwen3.5-35b-a3b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    # 4 x 2 tiles of 448 pixels and a thumbnail, 256 tokens each
    ("internvl3-8b", 1280, 720): (Layout(tiles=9), 9 * 256),
    ("gemma-3-4b", 1280, 720): (Layout(tiles=1), 256),
    # 280 tokens of 48 x 48 pixels at most: 12 x 22 of them
    ("gemma-4-e4b", 1280, 720): (Layout(grid=(36, 66)), 12 * 22),
    # 1536 x 864 pixels: 4 x 3 tiles of 384 and the whole, 81 tokens each
    ("smolvlm2", 1280, 720): (Layout(tiles=13), 13 * 81),
    # 1456 x 819 pixels: 4 x 3 tiles of 364 and the whole, 169 tokens each
    ("idefics3-8b", 1280, 720): (Layout(tiles=13), 13 * 169),
    # 4 x 2 tiles of 364 pixels and a thumbnail
    ("aya-vision-8b", 1280, 720): (Layout(tiles=9), 9 * 169),
    # 3 x 2 tiles of 448 pixels cover nine tenths of the image, and the whole; 256 tokens each
    ("ovis2-2b", 1280, 720): (Layout(tiles=7), 7 * 256),
}
# families of whose checkpoints no sizes are written down yet
WITHOUT_SHAPE = {
    "deepseek_ocr2", "gemma4_unified", "got_ocr2", "granite4_vision", "minicpmv4_6", "minicpmv4_7",
    "qwen2_audio", "voxtral",
}  # fmt: skip
TORCHVISION = {"command-a-vision-112b", "llama-4-scout", "lfm2-vl-1.6b"}  # needed by their image processors
NOT_LAID_OUT = {"llava-1.5-13b", *TORCHVISION}  # the first as llava-1.5-7b


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
        model = AutoModelForImageTextToText.from_config(config)
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


@pytest.mark.parametrize("shape", [shape for shape in LAYERS if shape not in TORCHVISION])
def test_budget_and_its_image_size(shape: str) -> None:
    known = next(key for key in [*KNOWN, (shape, 336, 336)] if key[0] == shape)
    size = f"{known[1]}x{known[2]}"
    result = duet("budget", "--shape", shape, "--image", size, "--keep", 0.3, "--json", "-")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["visual_tokens"] == (KNOWN[known][1] if known in KNOWN else 576)
    assert len(report["layers"]) == LAYERS[shape]
    assert report["average_tokens"] == pytest.approx(0.3 * report["visual_tokens"], rel=0.06)


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
