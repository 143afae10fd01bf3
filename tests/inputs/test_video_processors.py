"""Frames to tensors: what the stock video processors make of them, their constants, and naive loops."""

from __future__ import annotations

import ast
import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from moving import video
from transformers.image_utils import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    PILImageResampling,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as stock_qwen

from duet_vlm.families import FAMILIES
from duet_vlm.families.qwen2_5_vl import Qwen2VLVideoProcessor
from duet_vlm.families.qwen3_vl import Qwen3VLVideoProcessor
from duet_vlm.families.video import pixels
from duet_vlm.families.video.processors import FrameProcessor

# (shape, mean, deviation, mean weighted from -1 at the first number to 1 at the last) of what the stock classes of
# transformers 5.23 made of `video()` with torchvision 0.29.2
STOCK: dict[str, tuple[tuple[int, ...], list[float]]] = {
    "VideoLlavaVideoProcessor": ((1, 3, 3, 224, 224), [0.14416, 1.23418, 0.019006]),
    "LlavaNextVideoVideoProcessor": ((1, 3, 3, 224, 224), [0.14416, 1.23418, 0.019006]),  # settings as Video-LLaVA's
    "LlavaOnevisionVideoProcessor": ((1, 3, 3, 384, 384), [0.14232, 1.22901, 0.057026]),
    "InternVLVideoProcessor": ((1, 3, 3, 384, 384), [0.14232, 1.22901, 0.057026]),
    "Qwen2VLVideoProcessor": ((1152, 1176), [0.16053, 1.23276, 0.025249]),
    "Qwen3VLVideoProcessor": ((360, 1536), [-0.01495, 0.66515, 0.012819]),
    # of transformers 5.19 with torchvision 0.28, which made the same of Qwen2-VL's
    "Glm4vVideoProcessor": ((48, 1176), [0.16085, 1.23108, 0.024365]),
    "Glm46VVideoProcessor": ((48, 1176), [0.16085, 1.23108, 0.024365]),
    "Gemma4VideoProcessor": ((3, 630, 768), [0.45989, 0.34124, 0.002053]),
    "Gemma4UnifiedVideoProcessor": ((3, 70, 6912), [0.45989, 0.34124, 0.001991]),
    "SmolVLMVideoProcessor": ((1, 3, 3, 364, 364), [-0.0226, 0.66297, 0.019798]),
}

PROCESSORS = {name: family.video_processor for name, family in FAMILIES.items() if family.video_processor}

KINDS = list({kind.__name__: kind for kind in PROCESSORS.values()}.values())

SIZES = [(1080, 1920), (45, 80), (97, 31), (20, 500), (360, 640), (28, 28)]


def stock_source(name: str) -> ast.Module:
    """The stock video processor's file, which without torchvision can be read but not imported."""
    package = importlib.util.find_spec(f"transformers.models.{name}")
    assert package is not None and package.origin is not None
    return ast.parse((Path(package.origin).parent / f"video_processing_{name}.py").read_text())


def stock_function(name: str, function: str) -> Any:
    """One function of that file."""
    found = [node for node in stock_source(name).body if getattr(node, "name", "") == function]
    names: dict[str, Any] = {"math": math}
    exec(compile(ast.Module(found, []), name, "exec"), names)
    return names[function]


@pytest.mark.parametrize("kind", KINDS)
def test_as_the_stock_class(kind: type[FrameProcessor]) -> None:
    shape, (mean, deviation, weighted) = STOCK[kind.__name__]
    found = kind()([video()])[kind.model_input_names[0]]
    numbers = found.double().flatten()
    assert tuple(found.shape) == shape and found.dtype == torch.float32
    assert abs(numbers.mean().item() - mean) < 1e-4 and abs(numbers.std().item() - deviation) < 1e-4
    assert abs((numbers * torch.linspace(-1, 1, len(numbers)).double()).mean().item() - weighted) < 1e-4


# these take the processor of another model type's file
# whose processor is another model's
ELSEWHERE = {"qwen2_5_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v_moe", "glm_ocr"}


@pytest.mark.parametrize("name", sorted(set(PROCESSORS) - ELSEWHERE))
def test_constants_are_those_of_the_stock_source(name: str) -> None:
    kind = PROCESSORS[name]
    body = next(node.body for node in stock_source(name).body if getattr(node, "name", "") == kind.__name__)
    names = {
        "OPENAI_CLIP_MEAN": OPENAI_CLIP_MEAN, "OPENAI_CLIP_STD": OPENAI_CLIP_STD,
        "PILImageResampling": PILImageResampling,
        "IMAGENET_STANDARD_MEAN": IMAGENET_STANDARD_MEAN, "IMAGENET_STANDARD_STD": IMAGENET_STANDARD_STD,
    }  # fmt: skip
    compared = 0
    for node in body:
        if not isinstance(node, ast.Assign) or (isinstance(node.value, ast.Name) and node.value.id not in names):
            continue
        setting = node.targets[0].id  # type: ignore[attr-defined]
        value = eval(compile(ast.Expression(node.value), name, "eval"), dict(names))
        if value is not None and hasattr(kind(), setting) and setting not in ("do_convert_rgb", "default_to_square"):
            ours = getattr(kind(), setting)
            assert (list(ours) == list(value)) if isinstance(value, list) else ours == value, setting
            compared += 1
    assert compared >= 7


def test_video_llava_is_close_to_the_clip_image_processor() -> None:
    stock = CLIPImageProcessorPil()(list(video()), return_tensors="pt")["pixel_values"]
    found = PROCESSORS["video_llava"]()([video()])["pixel_values_videos"][0]
    # Pillow rounds after each of its two passes, torch too, but not alike: some eighth-bit steps
    assert (found - stock).abs().max() < 3 / 255 / min(OPENAI_CLIP_STD)


def test_qwen_of_equal_frames_is_close_to_its_image_processor() -> None:
    bounds = {"min_pixels": 3136, "max_pixels": 50176}
    stock = stock_qwen.Qwen2VLImageProcessorPil(**bounds)([video()[0]], return_tensors="pt")
    found = Qwen2VLVideoProcessor(**bounds)([video()[[0, 0]]])
    assert found["video_grid_thw"].tolist() == stock["image_grid_thw"].tolist()
    assert (found["pixel_values_videos"] - stock["pixel_values"]).abs().max() < 3 / 255 / min(OPENAI_CLIP_STD)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_patches_in_a_naive_loop(frames: int) -> None:
    patch, merge, temporal, height, width = 3, 2, 2, 12, 18
    given = torch.randn(frames, 3, height, width)
    flat, grid = pixels.patches(given, patch, merge, temporal)
    whole = [*given, *[given[-1]] * (frames % 2)]
    expected = []
    for t in range(len(whole) // temporal):
        for top in range(0, height, patch * merge):
            for left in range(0, width, patch * merge):
                for i in range(merge):
                    for j in range(merge):
                        one = []
                        for channel in range(3):
                            for frame in whole[t * temporal : (t + 1) * temporal]:
                                for y in range(patch):
                                    for x in range(patch):
                                        one.append(frame[channel, top + i * patch + y, left + j * patch + x].item())
                        expected.append(one)
    assert grid == [math.ceil(frames / 2), 4, 6]
    assert torch.equal(flat, torch.tensor(expected))


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_stock(size: tuple[int, int]) -> None:
    height, width = size
    of_whole_videos = stock_function("qwen3_vl", "smart_resize")
    for least, most in ((3136, 12845056), (128 * 784, 768 * 784), (4096, 8192)):
        expected = stock_qwen.smart_resize(height, width, 28, least, most)
        assert pixels.whole_patches(height, width, 28, least, most) == expected
        for frames in (2, 3, 5, 64):
            expected = of_whole_videos(frames, height, width, 2, 32, least, most)
            found = Qwen3VLVideoProcessor(size={"shortest_edge": least, "longest_edge": most})
            assert found.bounded(frames, height, width) == expected


def test_too_narrow() -> None:
    with pytest.raises(ValueError, match="a frame of 2010 x 10 pixels is too narrow"):
        pixels.whole_patches(10, 2010, 28, 1, 10**6)


def test_one_frame_is_enough() -> None:
    for kind in KINDS:
        found = kind()([video(1)])
        assert found[kind.model_input_names[0]].isfinite().all()


def test_crop_of_a_small_frame_is_padded_with_black() -> None:
    found = pixels.center_crop(torch.full((1, 3, 3, 9), 7, dtype=torch.uint8), 6, 5)
    expected = torch.zeros(6, 5, dtype=torch.uint8)
    expected[1:4] = 7
    assert torch.equal(found[0, 0], expected)


def test_resize_refuses_other_filters() -> None:
    with pytest.raises(ValueError, match="resample 5 is not supported for videos"):
        pixels.resize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 8, 8, 5)
