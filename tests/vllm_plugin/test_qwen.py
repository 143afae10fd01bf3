"""Qwen2.5-VL and Qwen3-VL in vLLM: images of several sizes, a video, text; as the transformers engine answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import vllm_qwen as cases
from PIL import Image
from vllm import LLM
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_engine import FOLDER, check, core_of, counted, engine, free_blocks, greedy, model_of, scheduler_of

from duet_vlm import DuetConfig, DuetError
from duet_vlm.vllm.frames import Grid, kept_of
from duet_vlm.vllm.qwen_prompts import CompressedProcessor

FAMILIES = [*cases.KINDS]
REFERENCES: dict[str, Any] = json.loads((FOLDER / "qwen.json").read_text(encoding="utf-8"))
FEW_BLOCKS = {"max_model_len": 256, "num_gpu_blocks_override": 27}  # so that requests are taken out and come back

family = pytest.mark.parametrize("family", FAMILIES)


def of(family: str, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings, and the engine's answers under them."""
    found = REFERENCES[f"{family}/{name}"]
    return found["duet"], found["rows"]


def open_engine(family: str, duet: dict[str, Any] | None, **options: Any) -> Any:
    limits = {"limit_mm_per_prompt": {"image": 2, "video": 1}, "mm_processor_kwargs": {}}
    return engine(family, duet, **limits, **options)


def request(row: dict[str, Any]) -> dict[str, Any]:
    media: dict[str, Any] = {
        "image": [Image.fromarray(cases.picture(one)) for one in row["media"] if one in cases.PICTURES],
        "video": [],
    }
    for one in row["media"]:
        if one in cases.CLIPS:
            frames, told = cases.clip(one)
            media["video"].append((frames, told | {"video_backend": "opencv", "do_sample_frames": False}))
    return {"prompt": row["prompt"], "multi_modal_data": {kind: given for kind, given in media.items() if given}}


def ask(llm: LLM, rows: list[dict[str, Any]], tokens: tuple[int, ...] = cases.TOKENS) -> list[Any]:
    return llm.generate([*map(request, rows)], [*map(greedy, tokens[: len(rows)])])


def whole(row: dict[str, Any]) -> int:
    """How many visual tokens a prompt has before stage 1: squares of 8 pixels, and every two frames are one."""
    shapes = [(2, *cases.PICTURES[one]) if one in cases.PICTURES else cases.CLIPS[one] for one in row["media"]]
    return sum(frames // 2 * (height // 8) * (width // 8) for frames, height, width in shapes)


def visual(output: Any) -> int:
    """How many places images and videos have in a prompt."""
    return sum(token in (cases.zoo.IMAGE, cases.zoo.VIDEO) for token in output.prompt_token_ids)


@family
def test_stage_1_in_parts_and_from_the_prefix_cache(family: str) -> None:
    duet, rows = of(family, "stage 1")
    options = {"max_num_batched_tokens": 48, "enable_chunked_prefill": True, "enable_prefix_caching": True}
    with open_engine(family, duet, **options) as llm:
        first = ask(llm, rows)
        check(first, rows)
        for output, row in zip(first, rows, strict=True):
            assert visual(output) == (row["per_layer"] or [0])[0]  # exactly what stage 1 retains
        again = ask(llm, rows)
        check(again, rows)
        assert sum(output.num_cached_tokens > 0 for output in again) >= 3
        # what the encoder's budget is made of: the largest image has 256 tokens, 76 and 25 after stage 1
        info = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.model_config).info
        assert info.get_max_image_tokens() == 101


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest) -> Iterator[tuple[str, LLM]]:
    """Both stages, drops between the layers that add deepstack features."""
    with open_engine(request.param, of(request.param, "both")[0]) as llm:
        yield request.param, llm


def test_both_stages(both: tuple[str, LLM]) -> None:
    family, llm = both
    _, rows = of(family, "both")
    kept = sum(fmean(row["per_layer"]) for row in rows if row["media"])
    for _ in range(2):  # the second time vLLM's caches know the pictures
        with counted(sum(map(whole, rows)), kept):
            check(ask(llm, rows), rows)


@pytest.mark.parametrize("name", cases.CHANGES)
def test_every_method(both: tuple[str, LLM], name: str) -> None:
    family, llm = both
    duet, rows = of(family, f"methods/{name}")
    model = model_of(llm)
    model.duet = model.duet_decoder.config = DuetConfig.from_dict(duet)
    if model.duet.query == "salient":
        model.duet_decoder.tokenizer = llm.get_tokenizer()
    llm.reset_mm_cache()
    core_of(llm).reset_encoder_cache()
    check(ask(llm, rows, (12,) * len(rows)), rows)


@family
def test_stage_2_alone_with_a_kv_group_a_stage_and_preemption(family: str) -> None:
    duet, rows = of(family, "stage 2")
    with open_engine(family, duet | {"kv_groups": True}, **FEW_BLOCKS) as llm:
        scheduler, out = scheduler_of(llm), []
        stock = scheduler._preempt_request
        scheduler._preempt_request = lambda one, *args, **kwargs: (
            out.append(len(one.output_token_ids)),
            stock(one, *args, **kwargs),
        )
        check(ask(llm, rows), rows)
        assert any(answered > 0 for answered in out)
        assert len(set(free_blocks(llm))) == 1


@family
def test_without_settings_stock_serves(family: str) -> None:
    _, rows = of(family, "stock")
    with open_engine(family, None) as llm:
        assert type(model_of(llm)).__module__.startswith("vllm.")
        check(ask(llm, rows), rows)


def config_of(family: str, duet: dict[str, Any], **options: Any) -> VllmConfig:
    """What vLLM makes of its flags, before it loads anything."""
    given = {"model": str(FOLDER / family), "max_model_len": 448, "hf_overrides": {"duet": duet}}
    return EngineArgs(**given | options).create_engine_config()


@family
def test_a_preset_and_a_budget(family: str) -> None:
    made = config_of(family, {"preset": "duet", "keep": 0.33}).model_config.hf_config
    wanted = DuetConfig.preset("duet", model=made, keep=0.33)
    assert DuetConfig.from_dict(made.duet) == wanted and wanted.merges and wanted.drops


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"mm_encoder_tp_mode": "data"}, "--mm-encoder-tp-mode data"),
        ({"video_pruning_rate": 0.5}, "--video-pruning-rate"),
        ({"enable_mm_embeds": True}, "--enable-mm-embeds"),
        ({"compilation_config": {"compile_mm_encoder": True}}, "compile_mm_encoder in --compilation-config"),
        ({"compilation_config": {"cudagraph_mm_encoder": True}}, "cudagraph_mm_encoder in --compilation-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "--speculative-config"),
    ],
)
def test_stage_1_refuses(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=f"stage 1.* does not work with {flag}: leave the flag out"):
        config_of("qwen2_5_vl", {"dominant": 0.3}, **options)


@family
@pytest.mark.parametrize(
    ("duet", "sentence"),
    [
        ({"dominant": 0.3, "positions": "renumber"}, "positions 'renumber' is not possible for"),
        ({"dominant": 0.3, "contextual": 0.1, "proportional": True}, "proportional is not possible in vLLM"),
        ({"downsample": [4, 4]}, "downsample is not possible in vLLM"),
        ({"drops": [{"layer": 6, "keep": 0.5}]}, "drop layer 6 is not possible"),
    ],
)
def test_settings_that_do_not_fit_are_refused(family: str, duet: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_of(family, duet)


def processor(length: int) -> Any:
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=1024), image_token_id=9)
    info = SimpleNamespace(
        duet=DuetConfig(dominant=3),
        get_hf_config=lambda: config,
        ctx=SimpleNamespace(model_config=SimpleNamespace(max_model_len=length)),
    )
    return SimpleNamespace(info=info)


def test_images_whose_positions_end_beyond_the_table_are_refused() -> None:
    grid = Grid(1, 2, 24)
    assert kept_of(DuetConfig(dominant=3), grid.tokens) == 3
    # 24 positions in the place of 3 tokens and what marks them: 853 tokens of a prompt reach 4094 positions
    assert CompressedProcessor._shorter(processor(853), [9] * 48, "image", grid).full == [9] * 3
    with pytest.raises(DuetError, match=r"2 x 24 visual tokens has 3 .* lower --max-model-len, which is 854"):
        CompressedProcessor._shorter(processor(854), [9] * 48, "image", grid)
