"""What the tests of the lmms-eval plug-in share: runs, pictures and videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from PIL import Image

from duet_vlm.lmms_eval import TASKS


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """lmms-eval keeps what it reads here, and asks no hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def run(task: str, batch_size: int = 1, limit: int | None = None, **arguments: Any) -> dict[str, Any]:
    """What lmms-eval returns for `--model duet_hf`."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, model_name="duet_hf")
    given = ",".join(f"{name}={value}" for name, value in arguments.items())
    found: dict[str, Any] = simple_evaluate(
        "duet_hf", given, tasks=[task], task_manager=manager, limit=limit, batch_size=batch_size, log_samples=True,
        bootstrap_iters=10,
    )  # fmt: skip
    return found


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Coloured squares."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def clip(file: Path, frames: int = 12, seed: int = 0) -> Path:
    """A video that PyAV wrote."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'duet-vlm[video]'")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_image(picture(64, 64, seed + i))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file
