"""`duet bench --engine vllm`: requests to vLLM, stock against compressed, engine beside engine in one run."""
