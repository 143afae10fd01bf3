"""`duet serve`: an OpenAI-compatible server of a compressed model."""
