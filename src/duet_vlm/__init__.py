"""Visual token compression for vision-language models."""
