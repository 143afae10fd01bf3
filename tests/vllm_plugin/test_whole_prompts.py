"""Stage 2 ranks whole prompts, so vLLM must never schedule a part of one, however many images come at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.serving import shapes
from recipes.serving.kv_groups import LAYERS, request_of, scheduler_of

VISUAL, TEXT, BATCHED = 307, 20, 1200


@pytest.mark.parametrize("ahead", [False, True], ids=["step by step", "a step ahead"])
def test_images_of_two_steps_have_place(tmp_path: Path, ahead: bool) -> None:
    options = {"max_model_len": 700, "max_num_seqs": 32, "max_num_batched_tokens": BATCHED}
    duet = {"preset": "duet", "tokens": 192}
    scheduler = scheduler_of(shapes.write(tmp_path, LAYERS), duet, 8 * 2**30, async_scheduling=ahead, **options)
    for number in range(9):
        scheduler.add_request(request_of(f"{number}", VISUAL, TEXT, image=f"{number}"))
    # with async scheduling the second step is made before the first has run, whose images are held until then
    steps = [scheduler.schedule().num_scheduled_tokens for _ in range(1 + ahead)]
    assert [[*step.values()] for step in steps] == [[VISUAL + TEXT] * 3] * len(steps)
