"""Stage 1 alone in vLLM: prompts cut into parts and prefixes shared, as vLLM does by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vllm import LLM
from vllm_engine import check, core_of, engine, greedy, references, request

REFERENCE = references()["visionzip"]
ROWS = REFERENCE["rows"]


@pytest.fixture(scope="module")
def served() -> Iterator[LLM]:
    # an image's tokens are more than one step takes
    with engine(duet=REFERENCE["duet"], max_num_batched_tokens=48) as llm:
        yield llm


def test_prompts_in_parts_and_shared_prefixes(served: LLM) -> None:
    config = core_of(served).vllm_config
    assert config.scheduler_config.enable_chunked_prefill and config.cache_config.enable_prefix_caching
    for _ in range(2):
        outputs = served.generate([*map(request, ROWS)], [*map(greedy, (40, 25, 40, 33, 40, 12, 40))])
        check(outputs, ROWS)
    assert max(output.num_cached_tokens for output in outputs) >= 64  # of an image and what stands before


def test_an_image_has_as_many_places_as_are_retained(served: LLM) -> None:
    (output,) = served.generate(request(ROWS[1]), greedy(1))
    config = core_of(served).vllm_config.model_config.hf_config
    retained = REFERENCE["duet"]["dominant"] + REFERENCE["duet"]["contextual"]
    assert output.prompt_token_ids.count(config.image_token_index) == 2 * retained
