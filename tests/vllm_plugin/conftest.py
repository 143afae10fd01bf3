"""Plans of counts, settings and refusals are tested anywhere; what starts an engine only where vLLM is installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
collect_ignore = (
    [file.name for file in HERE.glob("test_*.py") if re.search(r"^(?:from|import) vllm\b", file.read_text(), re.M)]
    if find_spec("vllm") is None
    else []
)
