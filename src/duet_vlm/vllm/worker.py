"""Workers of vLLM that show a model its runner, which knows whose tokens a step computes."""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Base
else:
    from vllm.v1.worker.gpu_worker import Worker as Base


class DuetWorker(Base):
    """The platform's worker; once its model is loaded, stage 2 learns of requests from its runner."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        decoder = getattr(self.model_runner.get_model(), "duet_decoder", None)
        if decoder is not None:
            decoder.stages.requests.follow(self.model_runner)
