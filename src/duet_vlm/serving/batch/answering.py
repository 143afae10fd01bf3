"""The run itself: batches go out to the workers, and what comes back is written as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ...errors import DuetError, reason
from ...evaluation.evaluate import batches_of
from .attempts import FarAttempts
from .cluster import Share
from .output import Output
from .worker import Job, Worker, packed


def answer_all(
    ray: Any,
    job: Job,
    output: Output,
    share: Share,
    batch_size: int,
    advance: Callable[[int], Any] = lambda lines: None,
    worker: type[Worker] = Worker,
) -> None:
    """Ask every record that is left, each until it has a line.

    Ray Data asks a batch again when its worker ends. Only this process writes, and each record once, so a worker that
    ends on its way, or twice the same answer, changes nothing.

    Args:
        ray: connected; see `cluster.cluster`.
        job: what the workers are told.
        output: the folder, open.
        share: what each worker gets.
        batch_size: prompts at a time; videos go alone.
        advance: called with the number of lines that came.
        worker: the class of the workers.

    Raises:
        DuetError: the workers cannot load the model, or cannot be started; or the folder has answers of other weights.
    """
    batches = batches_of(output.left, batch_size)
    if not batches:
        return
    rows = [{"batch": json.dumps([packed(record) for record in batch])} for batch in batches]
    # a batch to a block, so that only the batch is asked again whose worker ended
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = data.context.print_on_execution_start = False
    data.context.execution_no_progress_timeout_s = -1  # a long video, or a large model, takes its time
    pool = ray.data.ActorPoolStrategy(size=share.workers)
    constructor = (job, share.threads, FarAttempts(ray))
    data = data.map(
        worker, fn_constructor_args=constructor, compute=pool, num_cpus=share.cpus, num_gpus=share.gpus or None
    )
    try:
        for row in data.iter_rows():
            found = json.loads(row["found"])
            if "refused" in found:
                raise DuetError(found["refused"])
            output.check_weights(found["weights"])
            advance(output.add(found["lines"]))
    except ray.exceptions.RayActorError as error:
        raise DuetError(
            f"the workers cannot be started ({reason(error)}): every machine needs duet-vlm, and room for the model "
            "of each worker; fewer of them have more."
        ) from error
