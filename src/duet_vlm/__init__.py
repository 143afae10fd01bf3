"""DUET-VLM for stock transformers models: merge visual tokens at the encoder, drop them inside the language model."""

from .config import Drop, DuetConfig
from .engine import Duet, apply
from .trace import Trace

__version__ = "0.1.0"
__all__ = ["Drop", "Duet", "DuetConfig", "Trace", "apply"]
