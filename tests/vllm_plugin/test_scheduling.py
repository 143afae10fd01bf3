"""What vLLM's scheduler does to requests changes no answer, with one KV group and with one for every stage."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pytest
from vllm import LLM, SamplingParams
from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams
from vllm_engine import BLOCK, check, counted, engine, free_blocks, greedy, references, request, scheduler_of

TOKENS = (40, 25, 40, 33, 40, 12, 40)  # requests end one by one, so that prefill meets decoding
BLOCKS = {False: 19, True: 37}  # few enough that requests are taken out and come back
REFERENCE = references()["duet"]
ROWS: list[dict[str, Any]] = REFERENCE["rows"]


@pytest.fixture(scope="module", params=[False, True], ids=["one group", "a group a stage"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[LLM, bool]]:
    """The checkpoint that carries its settings, and one that is given them with `kv_groups`."""
    given = REFERENCE["duet"] | {"kv_groups": True} if request.param else None
    few = {"num_gpu_blocks_override": BLOCKS[request.param], "max_model_len": 288}
    with engine("random" if request.param else "saved", given, **few) as llm:
        yield llm, request.param


def preempted(llm: LLM) -> Any:
    """Counts how often requests are taken out."""
    scheduler, counts = scheduler_of(llm), []
    stock = scheduler._preempt_request
    scheduler._preempt_request = lambda request, *args, **kwargs: (
        counts.append((request.request_id, len(request.output_token_ids))),
        stock(request, *args, **kwargs),
    )
    return counts


def test_batches_with_preemption(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    counts = preempted(llm)
    images = sum(len(row["images"]) for row in ROWS)
    kept = sum(fmean(row["per_layer"]) for row in ROWS if row["per_layer"])
    with counted(196 * images, kept):  # once each, however often they are computed
        check(llm.generate([*map(request, ROWS)], [*map(greedy, TOKENS)]), ROWS)
    # some with an image and with a part of their answer, which must not rank when they come back
    assert any(answered > 0 for _, answered in counts)


def test_blocks_are_as_scheduled(served: tuple[LLM, bool]) -> None:
    llm, groups = served
    scheduler = scheduler_of(llm)
    llm.llm_engine.add_request("blocks", request(ROWS[0]), greedy(2))
    llm.llm_engine.step()
    name = next(iter(scheduler.requests))
    length = scheduler.requests[name].num_computed_tokens
    held = [len(blocks) for blocks in scheduler.kv_cache_manager.get_block_ids(name)]
    visual = ROWS[0]["per_layer"]
    # twelve layers as four groups of three, or as one
    left = [length - visual[0] + visual[layer] for layer in ((0, 3, 6, 9) if groups else (0,))]
    assert sorted(held, reverse=True) == [math.ceil(tokens / BLOCK) for tokens in left]
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    assert len(set(free_blocks(llm))) == 1


def test_all_blocks_are_free_after_random_requests_with_aborts(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    draw, sent, running = random.Random(0), 0, set()
    requests = [*map(request, ROWS)]
    while sent < 200 or llm.llm_engine.has_unfinished_requests():
        while sent < 200 and len(running) < 6:
            name = f"random-{sent}"
            params = SamplingParams(temperature=1.0, seed=sent, max_tokens=draw.randint(1, 6), ignore_eos=True)
            llm.llm_engine.add_request(name, draw.choice(requests), params)
            running.add(name)
            sent += 1
        for output in llm.llm_engine.step():
            if output.finished:
                running.discard(output.request_id)
        if running and draw.random() < 0.3:
            name = draw.choice(sorted(running))
            llm.llm_engine.abort_request([name])
            running.discard(name)
    assert sent == 200 and not scheduler_of(llm).requests
    assert len(set(free_blocks(llm))) == 1
    check(llm.generate([*map(request, ROWS[:2])], greedy(12)), ROWS[:2])


def test_samples_depend_on_their_seeds_alone(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    params = SamplingParams(temperature=1.0, n=3, seed=7, max_tokens=8, ignore_eos=True)
    alone, _, beside = llm.generate([*map(request, (ROWS[0], ROWS[1], ROWS[0]))], [params, greedy(8), params])
    texts = [[sample.token_ids for sample in output.outputs] for output in (alone, beside)]
    assert texts[0] == texts[1]
    assert len({tuple(ids) for ids in texts[0]}) == 3


def test_a_beam_search_never_ranks_by_its_beams(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    (found,) = llm.beam_search([request(ROWS[0])], BeamSearchParams(beam_width=1, max_tokens=6, ignore_eos=True))
    beam = found.sequences[0]
    assert beam.tokens[-6:] == ROWS[0]["ids"][:6]
    assert beam.cum_logprob == pytest.approx(sum(ROWS[0]["logprobs"][:6]), abs=6e-5)


def test_structured_output(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    choice = StructuredOutputsParams(choice=["red", "blue"])
    params = SamplingParams(temperature=0, max_tokens=4, structured_outputs=choice)
    for output in llm.generate([*map(request, ROWS[:3])], params):
        assert output.outputs[0].text.strip() in ("red", "blue")


def test_tokens_stream_one_by_one(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    params = greedy(5)
    llm.llm_engine.add_request("stream", request(ROWS[3]), params)
    seen: list[int] = []
    while llm.llm_engine.has_unfinished_requests():
        seen += [len(output.outputs[0].token_ids) for output in llm.llm_engine.step()]
    assert seen == [1, 2, 3, 4, 5]


def test_an_image_alone_stops_nothing(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    image = llm.llm_engine.model_config.hf_config.image_token_index
    alone = {"prompt_token_ids": [image], "multi_modal_data": request(ROWS[0])["multi_modal_data"]}
    first, *others = llm.generate([alone, *map(request, ROWS[:2])], greedy(12))
    assert len(first.outputs[0].token_ids) == 12
    check(others, ROWS[:2])
    assert len(set(free_blocks(llm))) == 1


def test_prompt_logprobs_are_there_for_every_token(served: tuple[LLM, bool]) -> None:
    llm, _ = served
    (output,) = llm.generate(request(ROWS[0]), SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0))
    values = [next(iter(step.values())).logprob for step in output.prompt_logprobs[1:]]
    assert len(values) == len(output.prompt_token_ids) - 1
    assert all(math.isfinite(value) and value < 0 for value in values)
