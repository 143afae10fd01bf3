"""Models with random weights, for what does not depend on them: times and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def random_model(config: PreTrainedConfig, dtype: str, device: str) -> PreTrainedModel:
    """A model of this config with weights drawn from N(0, 0.02), norms 1 and biases 0; seconds, whatever its size."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    kind = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    with no_init_weights(), torch.device(device):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=kind)
    # drawing billions of numbers takes minutes, copying two million of them does not; the odd size keeps rows different
    generator = torch.Generator().manual_seed(0)
    pool = torch.empty((1 << 21) + 1237).normal_(0, 0.02, generator=generator).to(device, kind)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.ndim > 1 or "class_embedding" in name:
                drawn = pool.roll(7919 * i)
                for part in parameter.view(-1).split(len(drawn)):
                    part.copy_(drawn[: len(part)])
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    model.eval()
    return model
