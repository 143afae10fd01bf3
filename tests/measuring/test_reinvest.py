"""What a saving buys, against arithmetic written out here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile import one_sentence
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.cli.main import app
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.measuring.reinvest import cost, frames_for, reinvested, tokens_for
from duet_vlm.measuring.settings import settings as settings_of

LOGITS = 2 * 4096 * 32064
VICUNA = 32  # layers, 4096 wide, 11008 inside


def layer(tokens: int) -> int:
    return 2 * tokens * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 2 * tokens * tokens * 4096


def clip_l(patches: int) -> int:
    """24 layers, 1024 wide, 4096 inside."""
    return 24 * (2 * patches * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * patches**2 * 1024)


def test_a_video_costs_its_frames_in_the_tower_and_their_tokens_in_the_decoder() -> None:
    config = shape_config("video-llava-7b")  # 256 tokens a frame
    duet = DuetConfig(dominant=40, contextual=8, drops=[Drop(16, 0.5), Drop(24, 0)])
    found = cost(config, duet, 256, 10, 64)
    counts = [480 + 64] * 16 + [240 + 64] * 8 + [64] * 8
    vocabulary = config.get_text_config().vocab_size
    assert found.flops == 10 * clip_l(256) + sum(map(layer, counts)) + 2 * 4096 * vocabulary
    assert found.kv_bytes == sum(counts) * 2 * 4096 * 2


@pytest.mark.parametrize("keep", [0.1, 0.33, 1.0])
def test_one_frame_more_would_cost_more_than_stock(keep: float) -> None:
    config = shape_config("video-llava-7b")
    duet = DuetConfig.preset("visionzip", model=config, keep=keep)
    count = frames_for(config, duet, 256, 8)
    stock = cost(config, DuetConfig(), 256, 8, 64)

    def dear(frames: int) -> bool:
        now = cost(config, duet, 256, frames, 64)
        return now.flops > stock.flops or now.kv_bytes > stock.kv_bytes

    assert count >= 8 and dear(count + 1) and (count == 8 or not dear(count))
    assert (count == 8) == (keep == 1.0)
    if keep < 1:  # no more than the tower alone would allow
        assert 8 / keep > count > 8 and count * clip_l(256) < stock.flops


def test_a_larger_picture_of_the_same_cost() -> None:
    config = shape_config("qwen2.5-vl-7b")
    duet = DuetConfig(dominant=0.25, contextual=0.05, drops=[Drop(14, 0.5)])
    more = tokens_for(config, duet, 1000)
    stock = cost(config, DuetConfig(), 1000, 1, 64)
    assert more > 1000 and cost(config, duet, more, 1, 64).within(stock)
    assert not cost(config, duet, more + 1, 1, 64).within(stock)
    said = reinvested(config, duet, "resolution", 1000, 8, 64)
    assert said["after"] == more and f"{more} visual tokens" in said["words"]


def test_what_cannot_be_bought_is_refused() -> None:
    llava, duet = shape_config("llava-1.5-7b"), DuetConfig(dominant=64)
    for kind, told in (
        ("frames", "a llava takes pictures only"),
        ("resolution", "a llava makes as many visual tokens of every picture"),
        ("pixels", "choose one of frames, resolution"),
    ):
        with pytest.raises(DuetError, match=told) as error:
            reinvested(llava, duet, kind, 576, 8, 64)
        one_sentence(error)


def budget(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["budget", *(str(a) for a in arguments)])


def test_the_command_says_what_a_saving_buys() -> None:
    report = json.loads(
        budget("--shape", "video-llava-7b", "--tokens", 64, "--reinvest", "frames", "--json", "-").stdout
    )
    config = shape_config("video-llava-7b")
    duet = DuetConfig.preset("duet", model=config, tokens=64)
    assert report["reinvest"]["after"] == frames_for(config, duet, 256, 8)
    refused = budget("--shape", "llava-1.5-7b", "--tokens", 64, "--reinvest", "frames")
    assert refused.exit_code == 2 and "takes pictures only" in refused.output


def test_a_benchmark_of_random_pictures_takes_no_coverage() -> None:
    config = shape_config("llava-1.5-7b")
    config.duet = DuetConfig(dominant=1.0, merging="scope", coverage=0.9).to_dict()
    with pytest.raises(DuetError, match=r"the model brings coverage 0\.9") as error:
        settings_of(config, ["saved"], [])
    one_sentence(error)


def test_coverage_is_from_the_floor_to_everything() -> None:
    shown = ("--shape", "llava-1.5-7b", "--method", "scope+duet", "--coverage", 0.9)
    report = json.loads(budget(*shown, "--json", "-").stdout)
    assert report["tokens_in"] == 576 and report["least"]["tokens_in"] == 2  # CLS and a patch
    assert report["least"]["kv_bytes"] == (16 * 66 + 8 * 65 + 8 * 64) * 2 * 4096 * 2
    said = " ".join(budget(*shown).stdout.split())
    assert "coverage goes by what an image shows" in said
    for more, told in (
        (("--keep", 0.2), "--coverage 0.9 are both a budget"),
        (("--history", 0.5), "history 0.5 is a share of counts"),
    ):
        refused = budget(*shown, *more)
        assert refused.exit_code == 2 and told in " ".join(refused.output.split())
    refused = budget("--shape", "llava-1.5-7b", "--method", "duet", "--coverage", 0.9)
    assert refused.exit_code == 2 and "--coverage 0.9 is for methods that choose" in " ".join(refused.output.split())
    assert budget("--data", "x.jsonl").exit_code == budget("--find-depth").exit_code == 2
