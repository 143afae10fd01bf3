"""Both stages in vLLM answer as the transformers engine does, several requests a step, by every method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from vllm import LLM
from vllm_engine import check, core_of, engine, greedy, model_of, references, request

from duet_vlm import DuetConfig


def test_the_demonstration_model() -> None:
    wanted = references()["demo"]
    with engine("demo", {"preset": "duet", "keep": 0.33}) as llm:
        assert model_of(llm).config.duet == wanted["duet"]
        # one alone, whose answer is the first that vLLM's own forward runs
        check(llm.generate(request(wanted["rows"][0]), greedy(2)), [wanted["rows"][0]])
        for row, output in zip(wanted["rows"], llm.generate([*map(request, wanted["rows"])], greedy(4)), strict=True):
            made = output.outputs[0]
            length = len(row["ids"])  # with its end
            assert list(made.token_ids)[:length] == row["ids"]
            got = [step[token].logprob for step, token in zip(made.logprobs, made.token_ids, strict=True)]
            assert got[:length] == pytest.approx(row["logprobs"], abs=1e-5)


# FastV ranks by the layer before its drop; here it keeps positions, too
@pytest.mark.parametrize(("name", "groups"), [("pyramiddrop", True), ("fastv", False)])
def test_stage_2_alone(name: str, groups: bool) -> None:
    wanted = references()[name]
    with engine(duet=wanted["duet"] | {"kv_groups": groups}, enforce_eager=groups) as llm:
        check(llm.generate([*map(request, wanted["rows"])], greedy(12)), wanted["rows"])


@pytest.fixture(scope="module")
def methods() -> Iterator[LLM]:
    """One engine for every method: what it merges and ranks by is changed between two requests."""
    with engine(duet=references()["methods/published"]["duet"], enforce_eager=True) as llm:
        yield llm


@pytest.mark.parametrize("name", [name for name in references() if name.startswith("methods/")])
def test_every_method(methods: LLM, name: str) -> None:
    wanted: dict[str, Any] = references()[name]
    model = model_of(methods)
    model.duet = model.duet_decoder.config = DuetConfig.from_dict(wanted["duet"])
    methods.reset_mm_cache()
    core_of(methods).reset_encoder_cache()
    check(methods.generate([*map(request, wanted["rows"])], greedy(12)), wanted["rows"])
