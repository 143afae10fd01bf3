"""The tap: hooks on one tower that note, in the encoder's call under way, what stage 1 reads of it.

There is one for all towers. What a family makes of what was noted is said by its `Stage1`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .encoding import Stage1


class Tap:
    """Hooks on one tower; outside a call of the encoder that `stage` belongs to, they do nothing.

    A backward pass with checkpoints computes tower layers once more, on a GPU in another thread. No call is under way
    there, so nothing is noted twice.

    The tap keeps no module: a deep copy of the model takes its own modules along, and this with them.
    """

    def __init__(self, stage: Stage1):
        self.stage = stage

    def hook(self, tower: nn.Module, attention: nn.Module, layer: nn.Module | None = None) -> list[Any]:
        """Put the hooks on.

        Args:
            tower: the vision tower, whose arguments are noted as `call.tower_kwargs`.
            attention: the attention module that scores, in the tower.
            layer: the layer that it stands in, where what this returns is needed as `call.output`.

        Returns:
            Handles that have `remove()`.
        """
        handles = [
            tower.register_forward_pre_hook(self.before_tower, with_kwargs=True),
            attention.register_forward_pre_hook(self.before_attention, with_kwargs=True),
            tower.register_forward_hook(self.after_tower),
        ]
        if layer is not None:
            # before FSDP's hook, which shards the layer's weights again
            handles.append(layer.register_forward_hook(self.after_layer, prepend=True))
        return handles

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        call = self.stage.call()
        if call is not None:
            call.tower_kwargs = kwargs

    @torch.no_grad()  # a checkpoint that computes the layer again would miss what was saved for gradients of this
    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        call = self.stage.call()
        if call is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            others = {k: v for k, v in kwargs.items() if k != "hidden_states"}
            self.stage.before_attention(call, attention, hidden, others)

    def after_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        call = self.stage.call()
        if call is not None:
            call.output = output[0] if isinstance(output, tuple) else output
            self.stage.after_layer(call, layer)

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        call = self.stage.call()
        if call is not None:
            self.stage.after_tower(call, tower, output)
