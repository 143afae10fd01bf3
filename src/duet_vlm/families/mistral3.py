"""Mistral 3: a Pixtral tower, four patches of which the projector merges to one visual token."""

from __future__ import annotations

from .pixtral import Pixtral


class Mistral3(Pixtral, model_types=("mistral3",)):
    """Mistral Small 3.1 and 3.2, and Ministral 3, whose attention scales queries by the positions that layers keep."""
