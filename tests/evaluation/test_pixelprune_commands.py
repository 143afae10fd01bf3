"""What the commands make of a method that has no budget and needs a picture: they count it, or refuse in a sentence."""

from __future__ import annotations

import pytest
import zoo
from hostile import one_sentence

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.checks.counts import schedule
from duet_vlm.config.registry import at_encoder
from duet_vlm.engine.trace import ImageTrace
from duet_vlm.evaluation.runs import runs_of
from duet_vlm.inputs.choice import check_choices, chosen
from duet_vlm.measuring.costs import cost_report
from duet_vlm.measuring.settings import settings
from duet_vlm.vllm.settings import check_fits

CONFIG = zoo.member("qwen2_5_vl").make().config
EXACT = DuetConfig(pixelprune=0)


def test_run_takes_it_without_a_budget() -> None:
    found = chosen(CONFIG, "pixelprune", None, None, default_keep=1 / 3)
    assert (found.config, found.words) == (EXACT, "pixelprune")
    behind = chosen(CONFIG, "pixelprune+fastv", None, 0.6).config
    assert behind.pixelprune == 0 and [drop.layer for drop in behind.drops] == [2] and behind.dominant is None
    with pytest.raises(
        DuetError, match="'pixelprune' keeps as much as the picture does not repeat: leave out"
    ) as error:
        chosen(CONFIG, "pixelprune", None, 0.5)
    one_sentence(error)


def test_eval_runs_it_once_beside_others_at_their_budgets() -> None:
    runs, problems = runs_of(CONFIG, ["none", "random", "pixelprune"], [], [0.5, 0.3])
    assert [run.label for run in runs] == ["none", "random 0.5", "random 0.3", "pixelprune"] and not problems
    assert runs[-1].config == EXACT and runs[-1].budget is None
    assert check_choices(["pixelprune"], [], [], None, default=False) == []
    refused = runs_of(zoo.member("internvl").make().config, ["random", "pixelprune"], [], [0.5])[1]
    assert [problem.reason for problem in refused if "pixelprune is not possible for internvl" in problem.reason]


@pytest.mark.parametrize("config", [EXACT, DuetConfig(pixelprune=2, dominant=4, drops=[Drop(2, 0.5)])])
def test_costs_without_a_picture_are_refused(config: DuetConfig) -> None:
    with pytest.raises(DuetError, match="what pixelprune leaves out depends on the picture, and here") as error:
        cost_report(CONFIG, config, 64, grid=(8, 8))
    one_sentence(error)


def test_a_benchmark_on_random_pixels_is_refused() -> None:
    for name in ("pixelprune", "pixelprune+duet"):
        with pytest.raises(DuetError, match="what pixelprune leaves out depends on the picture"):
            settings(CONFIG, [name], [], keep=[0.5])


def test_vllm_refuses_it() -> None:
    with pytest.raises(
        DuetError, match="pixelprune is not possible in vLLM, where an image's size alone says"
    ) as error:
        check_fits(EXACT, CONFIG)
    one_sentence(error)


def test_check_counts_what_the_trace_says_was_kept() -> None:
    model = zoo.build("qwen2_5_vl")
    batch = zoo.inputs("qwen2_5_vl", ((4, "i", 5),))
    images = [ImageTrace([1.0] * 16, [0, 3, 9], [5], [[2, 4]])]
    config = DuetConfig(pixelprune=0, dominant=3, contextual=1, drops=[Drop(2, 0.5)])
    assert schedule(model, config, batch, images, 5) == [4, 4, 2, 2, 2]


def test_the_refusal_names_every_method_that_can_choose_of_what_is_left() -> None:
    for name in at_encoder():
        try:
            DuetConfig(pixelprune=0, dominant=4, merging=name)
        except DuetError as error:
            named = str(error).split("choose one of ")[1].split(", or leave")[0].split(", ")
            assert name not in named and all(DuetConfig(pixelprune=0, dominant=4, merging=one) for one in named)
