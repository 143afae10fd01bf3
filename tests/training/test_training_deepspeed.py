"""DeepSpeed ZeRO-2 and ZeRO-3 as configured in `examples/training`, on two GPUs; elsewhere it skips itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from matrix import apply
from two_processes import STEPS, free_port, fresh, steps, train

CONFIGS = Path(__file__).parents[2] / "examples" / "training"


def settled(value: Any) -> Any:
    """A configuration without what the Trainer fills in ("auto")."""
    if not isinstance(value, dict):
        return value
    kept = {key: settled(part) for key, part in value.items() if part != "auto"}
    return {key: part for key, part in kept.items() if part != {}}


def work(rank: int, port: int, stage: int, folder: str) -> None:
    """One process: the steps of the other tests of two processes, losses of process 0 into a file."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }  # fmt: skip
    import deepspeed

    torch.cuda.set_device(rank)
    deepspeed.init_distributed("nccl")
    config = settled(json.loads((CONFIGS / f"zero{stage}.json").read_text()))
    config |= {"train_micro_batch_size_per_gpu": 2, "zero_allow_untested_optimizer": True}
    model = fresh(checkpointing=False)
    apply(model)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=weights, optimizer=optimizer, config=config)
    parts, counts = steps()
    losses = []
    for both, count in zip(parts, counts, strict=True):
        batch = {name: value.cuda() for name, value in both[rank].items()}
        loss = engine(**batch, num_items_in_batch=count.cuda()).loss * 2
        engine.backward(loss)
        engine.step()
        mean = loss.detach() / 2
        torch.distributed.all_reduce(mean)
        losses.append(mean.cpu())
    if rank == 0:
        torch.save(losses, Path(folder) / "losses.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.parametrize("stage", [2, 3])
def test_two_gpus_train_as_one_process(stage: int, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is tested where it is installed")
    if torch.cuda.device_count() < 2:
        pytest.skip("DeepSpeed is tested on two GPUs, and there are fewer")
    mp.spawn(work, args=(free_port(), stage, str(tmp_path)), nprocs=2)
    model = fresh(checkpointing=False)
    apply(model)
    parts, counts = steps()
    expected = train(model, parts, counts, share=1)
    losses = torch.load(tmp_path / "losses.pt", weights_only=True)
    assert len(losses) == len(STEPS)
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), atol=1e-3, rtol=1e-3)


def test_the_configurations_are_whole() -> None:
    """What DeepSpeed is given here says which stage, and nothing is left for a Trainer to fill in."""
    for stage in (2, 3):
        config = settled(json.loads((CONFIGS / f"zero{stage}.json").read_text()))
        assert config["zero_optimization"]["stage"] == stage and "auto" not in json.dumps(config)
