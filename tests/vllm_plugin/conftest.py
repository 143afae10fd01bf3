"""Without vLLM only what needs none of it is collected; the rest runs by `make test-vllm`."""

from importlib.util import find_spec
from pathlib import Path

if find_spec("vllm") is None:
    # all that start an engine or read flags share that file
    files = Path(__file__).parent.glob("test_*.py")
    collect_ignore = [file.name for file in files if "vllm_engine" in file.read_text(encoding="utf-8")]
