"""Which of a tower's layers the model takes its features from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DuetError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def feature_layer(config: PreTrainedConfig, layers: Any) -> Any:
    """The tower's layer whose output the model uses as features; the last where the config names none."""
    index = getattr(config, "vision_feature_layer", -1)
    return layers[index if index < 0 else index - 1]


def check_feature_layer(config: PreTrainedConfig) -> None:
    """Refuse several feature layers, and the embeddings alone."""
    layer = getattr(config, "vision_feature_layer", -1)
    if not isinstance(layer, int) or layer == 0:
        raise DuetError(
            f"stage 1 needs one vision_feature_layer that is not 0, and this model uses {layer!r}: "
            "set dominant=None to use stage 2 alone."
        )
