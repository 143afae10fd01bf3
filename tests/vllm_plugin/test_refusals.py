"""What an engine's start switches off, and what it refuses in a sentence that names the flag."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import vllm_engine
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models.config import MODELS_CONFIG_MAP
from vllm.model_executor.models.registry import ModelRegistry

from duet_vlm.vllm import PREFIX, SERVED

FULL: dict[str, Any] = {"drops": [{"layer": 6, "keep": 0.5}], "query": "last"}
STAGE1: dict[str, Any] = {"dominant": 50, "contextual": 10}


def config_of(duet: dict[str, Any] | None, **options: Any) -> VllmConfig:
    """What vLLM makes of its flags, before it loads anything."""
    given = {"hf_overrides": {"duet": duet}} if duet is not None else {}
    settings: dict[str, Any] = {"model": str(vllm_engine.FOLDER / "random"), "dtype": "float32", "max_model_len": 448}
    return EngineArgs(**settings | given | options).create_engine_config()


def test_stage_2_switches_off_what_it_cannot_live_with() -> None:
    made = config_of(FULL, max_num_batched_tokens=128, enable_chunked_prefill=True, enable_prefix_caching=True)
    assert not made.scheduler_config.enable_chunked_prefill
    assert not made.cache_config.enable_prefix_caching
    assert not made.model_config.enforce_eager  # on a CPU; what drops nothing is compiled there
    assert made.scheduler_config.max_num_batched_tokens == 448
    assert made.scheduler_config.encoder_cache_size == 2 * 448
    assert made.parallel_config.worker_cls == "duet_vlm.vllm.worker.DuetWorker"
    assert made.scheduler_config.scheduler_cls is None
    assert made.model_config.architectures == [PREFIX + next(iter(SERVED))]


def test_no_compiled_graph_is_shared_with_stock() -> None:
    # vLLM keeps what it has compiled under these names
    assert len({config_of(duet).compute_hash() for duet in (None, STAGE1, FULL, FULL | {"query": "all"})}) == 4


def test_kv_groups_bring_their_scheduler() -> None:
    made = config_of(FULL | {"kv_groups": True})
    assert made.scheduler_config.scheduler_cls == "duet_vlm.vllm.kv.StageScheduler"


def test_stage_1_alone_leaves_all_as_it_is() -> None:
    made, stock = config_of(STAGE1), config_of(None)
    for one in (made, stock):
        one.model_config.hf_config.duet = None
        one.instance_id = ""
    assert made.scheduler_config == stock.scheduler_config and made.parallel_config == stock.parallel_config
    assert made.cache_config == stock.cache_config and made.compilation_config == stock.compilation_config
    assert made.scheduler_config.enable_chunked_prefill and made.cache_config.enable_prefix_caching


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size"),
        ({"compilation_config": {"mode": 1}}, "mode 1 in --compilation-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "--speculative-config"),
        ({"enable_lora": True}, "--enable-lora"),
        ({"kv_offloading_size": 1.0}, "--kv-offloading-size"),
        ({"enable_prompt_embeds": True}, "--enable-prompt-embeds"),
        ({"long_prefill_token_threshold": 64}, "--long-prefill-token-threshold"),
        ({"max_num_scheduled_tokens": 447}, "--max-num-scheduled-tokens"),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "--scheduler-cls"),
        ({"worker_cls": "vllm.v1.worker.cpu_worker.CPUWorker"}, "--worker-cls"),
    ],
)
def test_stage_2_refuses(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=f"stage 2 does not work with {flag}: leave the flag out"):
        config_of(FULL, **options)


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"tensor_parallel_size": 2}, "--tensor-parallel-size"), ({"enable_mm_embeds": True}, "--enable-mm-embeds")],
)
def test_stage_1_refuses(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=f"stage 1.* does not work with {flag}: leave the flag out"):
        config_of(STAGE1, **options)


def test_salient_words_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="leave out --skip-tokenizer-init, or choose query 'all' or 'last'"):
        config_of(FULL | {"query": "salient"}, skip_tokenizer_init=True)


def test_the_second_model_runner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(ValueError, match="set the environment variable VLLM_USE_V2_MODEL_RUNNER=0"):
        config_of(FULL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"disable_hybrid_kv_cache_manager": True}, "kv_groups does not work with --disable-hybrid-kv-cache-manager"),
        ({"async_scheduling": True}, "kv_groups does not work with --async-scheduling"),
    ],
)
def test_kv_groups_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(FULL | {"kv_groups": True}, **options)


def test_kv_groups_without_a_drop_are_refused() -> None:
    with pytest.raises(ValueError, match="kv_groups saves the KV blocks of dropped tokens, and these settings drop"):
        config_of(STAGE1 | {"kv_groups": True})


def test_settings_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="drop layer 40 is not possible: this model has 12 decoder layers"):
        config_of({"drops": [{"layer": 40, "keep": 0.5}]})


def test_models_that_are_not_compressed_are_refused() -> None:
    """Settings that nobody reads would go unnoticed, whatever the model."""
    with pytest.raises(
        ValueError, match="TransformersMultiModalForCausalLM is not compressed in vLLM: take `duet` out"
    ):
        config_of(FULL, model_impl="transformers")
    for architecture in {*ModelRegistry.get_supported_archs()} - {*SERVED}:
        hook: Any = MODELS_CONFIG_MAP.get(architecture)
        if not architecture.startswith(PREFIX) and hook.stock is None:  # whose own rules want a whole config
            with pytest.raises(ValueError, match=f"{architecture} is not compressed in vLLM"):
                hook.verify_and_update_model_config(SimpleNamespace(hf_config=SimpleNamespace(duet=FULL)))
