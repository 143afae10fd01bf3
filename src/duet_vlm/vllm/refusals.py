"""At the start of an engine: switch off what stage 2 cannot live with, and refuse what somebody asked for."""

from __future__ import annotations

import logging
from typing import Any

from vllm.config import CompilationMode
from vllm.logger import init_logger

from ..errors import DuetError
from ..families import family_of
from . import settings

_log: logging.Logger = init_logger("vllm.duet")
_WORKER = "duet_vlm.vllm.worker.DuetWorker"
_SCHEDULER = "duet_vlm.vllm.kv.StageScheduler"


def prepare(vllm_config: Any) -> None:
    """Make a config of vLLM one that the settings of its model can run under.

    Stage 1 alone leaves everything as it is. With stage 2 prompts are not cut into parts, their prefixes are not
    shared, layers run eagerly, and the worker is ours.

    Raises:
        DuetError: something that cannot be, with the flag that asked for it.
    """
    model = vllm_config.model_config
    served = settings.read(model.hf_config)
    config = served.config
    if config.merges:
        _refuse_stage1(vllm_config)
    if any(drop.keep < 1 for drop in config.drops):
        _refuse_stage2(vllm_config)
        if config.ranks and config.query == "salient" and model.skip_tokenizer_init:
            raise DuetError(
                "query 'salient' needs the words of the question: leave out --skip-tokenizer-init, or choose query "
                "'all' or 'last'."
            )
        _switch_off(vllm_config)
        _choose_worker(vllm_config)
        if served.kv_groups:
            scheduler = vllm_config.scheduler_config
            _refuse(scheduler.disable_hybrid_kv_cache_manager, "kv_groups", "--disable-hybrid-kv-cache-manager")
            _refuse(scheduler.async_scheduling, "kv_groups", "--async-scheduling")
            scheduler.async_scheduling = False
            scheduler.scheduler_cls = _SCHEDULER
    elif served.kv_groups:
        raise DuetError("kv_groups saves the KV blocks of dropped tokens, and these settings drop none: leave it out.")


def _refuse_stage1(vllm_config: Any) -> None:
    model, parallel, lora = vllm_config.model_config, vllm_config.parallel_config, vllm_config.lora_config
    media, compilation = model.multimodal_config, vllm_config.compilation_config
    for asked, flag in (
        (parallel.tensor_parallel_size > 1, "--tensor-parallel-size"),
        (media.mm_encoder_tp_mode == "data", "--mm-encoder-tp-mode data"),
        (lora is not None and lora.enable_tower_connector_lora, "--enable-tower-connector-lora"),
        (media.get_video_pruning_spec() is not None, "--video-pruning-rate"),
        (vllm_config.ec_transfer_config is not None, "--ec-transfer-config"),
        (compilation.compile_mm_encoder, "compile_mm_encoder in --compilation-config"),
        (compilation.cudagraph_mm_encoder, "cudagraph_mm_encoder in --compilation-config"),
    ):
        _refuse(asked, "stage 1", flag)
    _refuse(media.enable_mm_embeds, "stage 1, which is done to pixels,", "--enable-mm-embeds")
    if family_of(model.hf_config).position_axes > 1:
        what = (
            "stage 1 of models whose positions have three axes"  # which only the first process and no draft model has
        )
        _refuse(parallel.pipeline_parallel_size > 1, what, "--pipeline-parallel-size")
        _refuse(vllm_config.speculative_config is not None, what, "--speculative-config")


def _refuse_stage2(vllm_config: Any) -> None:
    parallel, cache, scheduler = vllm_config.parallel_config, vllm_config.cache_config, vllm_config.scheduler_config
    most = scheduler.max_num_scheduled_tokens
    for asked, flag in (
        (parallel.tensor_parallel_size > 1, "--tensor-parallel-size"),
        (parallel.pipeline_parallel_size > 1, "--pipeline-parallel-size"),
        (parallel.decode_context_parallel_size > 1, "--decode-context-parallel-size"),
        (parallel.prefill_context_parallel_size > 1, "--prefill-context-parallel-size"),
        (parallel.use_ubatching, "--enable-dbo or --ubatch-size"),
        (vllm_config.speculative_config is not None, "--speculative-config"),
        (vllm_config.lora_config is not None, "--enable-lora"),
        (vllm_config.kv_transfer_config is not None, "--kv-transfer-config"),
        (cache.kv_offloading_size is not None, "--kv-offloading-size"),
        (cache.kv_sharing_fast_prefill, "--kv-sharing-fast-prefill"),
        (vllm_config.model_config.enable_prompt_embeds, "--enable-prompt-embeds"),
        (
            vllm_config.compilation_config.mode == CompilationMode.STOCK_TORCH_COMPILE,  # all of our class as one graph
            "mode 1 in --compilation-config",
        ),
        (scheduler.long_prefill_token_threshold > 0, "--long-prefill-token-threshold"),  # cuts prompts all the same
        (most is not None and most < vllm_config.model_config.max_model_len, "--max-num-scheduled-tokens"),
        (scheduler.scheduler_cls not in (None, _SCHEDULER), "--scheduler-cls"),
        (parallel.worker_cls not in ("auto", _WORKER), "--worker-cls"),
    ):
        _refuse(asked, "stage 2", flag)
    if vllm_config.use_v2_model_runner:
        raise DuetError(
            "stage 2 does not work with vLLM's second model runner: set the environment variable "
            "VLLM_USE_V2_MODEL_RUNNER=0, which chooses the first."
        )


def _refuse(asked: bool, what: str, flag: str) -> None:
    if asked:
        raise DuetError(f"{what} does not work with {flag}: leave the flag out, or the settings in `duet`.")


def _switch_off(vllm_config: Any) -> None:
    """What is on by itself; vLLM cannot tell who switched it on."""
    from vllm.platforms import current_platform

    scheduler, cache, model = vllm_config.scheduler_config, vllm_config.cache_config, vllm_config.model_config
    off = []
    if scheduler.enable_chunked_prefill:
        scheduler.enable_chunked_prefill = False
        off.append("chunked prefill")
    if cache.enable_prefix_caching:
        cache.enable_prefix_caching = False
        off.append("prefix caching")
    if not model.enforce_eager and not current_platform.is_cpu():  # compiled steps never ran on a GPU
        model.enforce_eager = True
        off.append("torch.compile with CUDA graphs")
    if off:
        _log.info("duet drops visual tokens inside the language model, so it switched off: %s.", ", ".join(off))
    if scheduler.max_num_batched_tokens < model.max_model_len:
        _log.info("duet: max_num_batched_tokens is %d now, the longest whole prompt.", model.max_model_len)
        for name in ("max_num_batched_tokens", "max_num_encoder_input_tokens", "encoder_cache_size"):
            setattr(scheduler, name, max(getattr(scheduler, name), model.max_model_len))
    # a step's images are held until it has run, and the next step is scheduled before: without place for both, vLLM
    # would schedule a prompt up to its image
    scheduler.encoder_cache_size = max(scheduler.encoder_cache_size, 2 * scheduler.max_num_batched_tokens)


def _choose_worker(vllm_config: Any) -> None:
    from vllm.platforms import current_platform

    if not (current_platform.is_cpu() or current_platform.is_cuda_alike()):
        raise DuetError(f"stage 2 does not work on {current_platform.device_name} in vLLM: it knows CPU and CUDA.")
    vllm_config.parallel_config.worker_cls = _WORKER
