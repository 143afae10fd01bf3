"""Plans of counts, settings and refusals are tested anywhere; what starts an engine only where vLLM is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ANYWHERE = ("test_frames.py", "test_plan.py", "test_settings.py")
needing = [file.name for file in Path(__file__).parent.glob("test_*.py") if file.name not in ANYWHERE]
collect_ignore = needing if find_spec("vllm") is None else []
