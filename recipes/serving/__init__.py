"""Measurements of vLLM with duet-vlm, run in the environment of `make test-vllm`."""
